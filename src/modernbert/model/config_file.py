"""Reading config.json, as transformers and others write it, into the numbers of our configs.

Version 4 of transformers, and most other readers, know `global_attn_every_n_layers`,
`global_rope_theta` and `local_rope_theta`; version 5 writes `layer_types` and `rope_parameters`
instead. Either is read, and a file whose two styles contradict each other is refused. So is what
this package does not compute: other activations, biases, scaled rotary positions.

Rates of dropout in the file are passed over: dropout is a setting of a training, not of a model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.hub import find_folder
from modernbert.json_files import read_object
from modernbert.kinds import CONFIG_FILE, ModelKind, model_folder

LAYER_KINDS = {"full_attention": "global", "sliding_attention": "local"}

# Keys whose value is the same in every ModernBERT that this package computes.
FIXED_IN_ENCODERS = {
    "attention_bias": False,
    "hidden_activation": "gelu",
    "mlp_bias": False,
    "norm_bias": False,
}
FIXED_IN_HEADS = {"classifier_activation": "gelu", "classifier_bias": False}
FIXED_IN_DECODERS = {"decoder_bias": True, "tie_word_embeddings": True}

PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}

# In the order of the published vocabulary; a file without them means these.
PUBLISHED_IDS = {
    "unk_token_id": 50_280,
    "cls_token_id": 50_281,
    "sep_token_id": 50_282,
    "pad_token_id": 50_283,
    "mask_token_id": 50_284,
}

# EncoderConfig sets true limits; this one keeps lists short that are made before it is asked.
_MAX_LIST = 1 << 16


def find_model(
    folder_or_hub_id: Path | str, *, weights: bool, wanted: tuple[ModelKind, ...] = ()
) -> Path:
    """Find a model's folder here, or fetch its files from the hub.

    Args:
        folder_or_hub_id: A folder, also that of a run, or `owner/name` on the hub.
        weights: Whether they are wanted too, and not the config alone.
        wanted: What the model is to be for; anything when empty.

    Raises:
        ModelFolderError: A path where no folder is, a hub id that cannot be fetched, or something
            else than such a model.
    """
    folder = find_folder(
        folder_or_hub_id,
        patterns=["*.json", "*.safetensors"] if weights else [CONFIG_FILE],
        content=f"a {CONFIG_FILE}",
        error=ModelFolderError,
    )
    return model_folder(folder, wanted)


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json, which must be a ModernBERT's.

    Raises:
        ModelFolderError: no such file, or none that can be read.
        ConfigError: the config of another kind of model.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ModelFolderError(f"{folder}: holds no {CONFIG_FILE}; expected the folder of a model")
    published = read_object(path)
    if published.get("model_type") != "modernbert":
        raise ConfigError(
            f"{path}: model_type: got {published.get('model_type')!r}, expected 'modernbert'"
        )
    return published


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Put the file's path in front of what a ConfigError says about its content."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from None


def encoder_numbers(published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an EncoderConfig. Where a key is absent, transformers' default counts.

    Raises:
        ConfigError: contradictions, wrong types, or what this package does not compute.
    """
    _check_fixed(published, {**FIXED_IN_ENCODERS, "rope_scaling": None})
    vocab_size = _integer(published, "vocab_size", 50_368)
    hidden_size = _integer(published, "hidden_size", 768)
    num_heads = _integer(published, "num_attention_heads", 12)
    window = _integer(published, "local_attention", 128) // 2
    norm_eps = _number(published, "norm_eps", 1e-5)
    _check_same("norm_eps", norm_eps, "layer_norm_eps", published.get("layer_norm_eps"))
    _check_same("local_attention / 2", window, "sliding_window", published.get("sliding_window"))
    if (head_size := _integer(published, "head_dim", 0)) and head_size * num_heads != hidden_size:
        raise ConfigError(f"head_dim {head_size} x {num_heads} heads is not {hidden_size} wide")
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": _integer(published, "intermediate_size", 1_152),
        "num_heads": num_heads,
        "layer_kinds": _layer_kinds(published),
        "window": window,
        "norm_eps": norm_eps,
        "max_seqlen": _integer(published, "max_position_embeddings", 8_192),
        **_thetas(published),
        **_token_ids(published, vocab_size),
    }


def check_head(published: Mapping[str, Any], *, decoder: bool) -> None:
    """Refuse heads that this package does not compute.

    decoder: whether the model predicts masked tokens.

    Raises:
        ConfigError: another activation, or biases elsewhere than here.
    """
    _check_fixed(published, FIXED_IN_HEADS)
    if decoder:
        _check_fixed(published, FIXED_IN_DECODERS)


def classifier_fields(published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ClassifierSettings.

    Raises:
        ConfigError: labels that contradict each other, or an unknown pooling or problem.
    """
    labels = _labels(published)
    pooling = published.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise ConfigError(f"classifier_pooling: got {pooling!r}, expected 'cls' or 'mean'")
    problem = published.get("problem_type")
    if problem is None:
        problem = "single_label_classification" if len(labels) > 1 else "regression"
    if not isinstance(problem, str) or problem not in PROBLEMS:
        raise ConfigError(f"problem_type: got {problem!r}, expected one of {', '.join(PROBLEMS)}")
    return {"labels": labels, "pooling": pooling, "problem": PROBLEMS[problem]}


def _every(gap: int, num_layers: int) -> tuple[str, ...]:
    return tuple("local" if i % gap else "global" for i in range(num_layers))


def _layer_kinds(published: Mapping[str, Any]) -> tuple[str, ...]:
    num_layers = _integer(published, "num_hidden_layers", 22)
    if not 1 <= num_layers <= _MAX_LIST:
        raise ConfigError(f"num_hidden_layers: got {num_layers}, expected 1 to {_MAX_LIST}")
    every = _integer(published, "global_attn_every_n_layers", 3)
    if every < 1:
        raise ConfigError(f"global_attn_every_n_layers: got {every}, expected 1 or more")
    layer_types = published.get("layer_types")
    if layer_types is None:
        return _every(every, num_layers)
    if not isinstance(layer_types, list) or not all(
        isinstance(x, str) and x in LAYER_KINDS for x in layer_types
    ):
        raise ConfigError(f"layer_types: expected a list of {' and '.join(map(repr, LAYER_KINDS))}")
    _check_same("layers in layer_types", len(layer_types), "num_hidden_layers", num_layers)
    kinds = tuple(LAYER_KINDS[layer_type] for layer_type in layer_types)
    if "global_attn_every_n_layers" in published and kinds != _every(every, num_layers):
        raise ConfigError(f"layer_types contradicts global_attn_every_n_layers {every}")
    return kinds


def _thetas(published: Mapping[str, Any]) -> dict[str, float]:
    parameters = published.get("rope_parameters") or {}
    if not isinstance(parameters, dict) or not parameters.keys() <= LAYER_KINDS.keys():
        raise ConfigError(f"rope_parameters: expected {' and '.join(map(repr, LAYER_KINDS))} alone")
    global_theta = _theta(published, parameters, "full_attention", "global_rope_theta", 160_000.0)
    # Version 4 takes null for "as in global layers".
    default = 10_000.0 if published.get("local_rope_theta", 0) is not None else global_theta
    local_theta = _theta(published, parameters, "sliding_attention", "local_rope_theta", default)
    return {"global_theta": global_theta, "local_theta": local_theta}


def _theta(
    published: Mapping[str, Any],
    parameters: Mapping[str, Any],
    layer_type: str,
    old_key: str,
    default: float,
) -> float:
    where = f"rope_parameters.{layer_type}"
    entry = parameters.get(layer_type) or {}
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected an object")
    for key, value in entry.items():
        supported = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
        if key != "rope_theta" and supported.get(key) != value:
            raise ConfigError(f"{where}.{key}: {value!r} is not supported; plain positions are")
    old = _number(published, old_key, default)
    new = _number(entry, "rope_theta", old)
    if published.get(old_key) is not None:
        _check_same(f"{where}.rope_theta", new, old_key, old)
    return new


def _token_ids(published: Mapping[str, Any], vocab_size: int) -> dict[str, int]:
    """The special tokens' ids.

    transformers writes its defaults, the published ids, into the config of any vocabulary, also
    of one that is too small for them: there they count as absent, and the first ids stand in.
    """
    ids = {}
    for index, (key, usual) in enumerate(PUBLISHED_IDS.items()):
        token_id = _integer(published, key, usual)
        absent = token_id == usual and token_id >= vocab_size
        ids[key] = index if absent else token_id
    return ids


def _labels(published: Mapping[str, Any]) -> tuple[str, ...]:
    names = published.get("id2label")
    if names is None:
        count = _integer(published, "num_labels", 2)
        if not 1 <= count <= _MAX_LIST:
            raise ConfigError(f"num_labels: got {count}, expected 1 to {_MAX_LIST}")
        names = {str(i): f"LABEL_{i}" for i in range(count)}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ConfigError("id2label: expected an object of names")
    if names.keys() != {str(i) for i in range(len(names))}:
        raise ConfigError(f"id2label: expected the keys 0 to {len(names) - 1}, one a label")
    labels = tuple(names[str(i)] for i in range(len(names)))
    _check_same("labels in id2label", len(labels), "num_labels", published.get("num_labels"))
    ids = published.get("label2id")
    if ids is not None and ids != {label: i for i, label in enumerate(labels)}:
        raise ConfigError("label2id contradicts id2label")
    return labels


def _check_fixed(published: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, supported in fixed.items():
        value = published.get(key, supported)
        if value != supported:
            raise ConfigError(f"{key}: {value!r} is not supported; {supported!r} is")


def _check_same(name: str, value: float, other_name: str, other: object) -> None:
    """Refuse two entries that should say the same; an absent one says nothing."""
    if other is not None and other != value:
        raise ConfigError(f"{name} is {value}, but {other_name} is {other}")


def _integer(published: Mapping[str, Any], key: str, default: int) -> int:
    value = published.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}: got {value!r}, expected a whole number")
    return value


def _number(published: Mapping[str, Any], key: str, default: float) -> float:
    value = published.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ConfigError(f"{key}: got {value!r}, expected a number")
    return float(value)
