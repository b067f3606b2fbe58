"""Reading config.json, as transformers and others write it, into the numbers of our configs.

Version 4 of transformers, and most other readers, know `global_attn_every_n_layers`,
`global_rope_theta` and `local_rope_theta`; version 5 writes `layer_types` and `rope_parameters`
instead. Either is read, and a file whose two styles contradict each other is refused. So is what
this package does not compute: other activations, other ways to scale rotary positions.

Rates of dropout in the file are passed over: dropout is a setting of a training, not of a model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.hub import find_folder
from modernbert.json_files import check_same, flag, integer, number, read_object
from modernbert.kinds import ADAPTER_FILE, CONFIG_FILE, ModelKind, model_folder
from modernbert.model.rope_scaling import RopeScaling, read_scaling
from modernbert.word_splitting import WordSplitting

LAYER_KINDS: Mapping[str, Literal["global", "local"]] = {
    "full_attention": "global",
    "sliding_attention": "local",
}

# Whether parts have biases, by the names here.
BIASES = {
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "norm_bias": "norm_bias",
    "head_bias": "classifier_bias",
}

# What config.json calls an activation; of several names the first is the one that is written.
ACTIVATION_NAMES = {
    "gelu": ("gelu",),
    "gelu_tanh": ("gelu_pytorch_tanh", "gelu_new"),
    "silu": ("silu", "swish"),
    "relu": ("relu",),
    "relu2": ("relu2",),
}
# Those that only the block before a head's last layer may have.
HEAD_ACTIVATION_NAMES = {**ACTIVATION_NAMES, "linear": ("linear",), "tanh": ("tanh",)}

# Models with ModernBERT's layers that are no encoders, and what to say of them.
_SIBLINGS = {
    "modernbert-decoder": "a causal ModernBERT decoder, which predicts the next token",
    "modernvbert": "ModernVBERT, which reads images too",
}

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
    """Return the content of a folder's config.json, which must be a ModernBERT's.

    Raises:
        ModelFolderError: No such file, or none that can be read.
        ConfigError: The config of another kind of model.
    """
    path = folder / CONFIG_FILE
    if (folder / ADAPTER_FILE).exists():
        model_folder(folder)
    if not path.exists():
        raise ModelFolderError(f"{folder}: holds no {CONFIG_FILE}; expected the folder of a model")
    published = read_object(path)
    model_type = published.get("model_type")
    if isinstance(model_type, str) and model_type in _SIBLINGS:
        raise ConfigError(
            f"{path}: model_type {model_type!r} is {_SIBLINGS[model_type]}; this package runs "
            "ModernBERT encoders, whose model_type is 'modernbert'"
        )
    if model_type != "modernbert":
        raise ConfigError(f"{path}: model_type: got {model_type!r}, expected 'modernbert'")
    return published


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Put the file's path in front of what a ConfigError says about its content."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from None


def encoder_numbers(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an EncoderConfig. Where a key is absent, transformers' default counts.

    Raises:
        ConfigError: Contradictions, wrong types, or what this package does not compute.
    """
    _refuse_others(published)
    vocab_size = integer(published, "vocab_size", 50_368)
    hidden_size = integer(published, "hidden_size", 768)
    num_heads = integer(published, "num_attention_heads", 12)
    window = integer(published, "local_attention", 128) // 2
    norm_eps = number(published, "norm_eps", 1e-5)
    check_same("norm_eps", norm_eps, "layer_norm_eps", published.get("layer_norm_eps"))
    check_same("local_attention / 2", window, "sliding_window", published.get("sliding_window"))
    if (head_size := integer(published, "head_dim", 0)) and head_size * num_heads != hidden_size:
        raise ConfigError(f"head_dim {head_size} x {num_heads} heads is not {hidden_size} wide")
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": integer(published, "intermediate_size", 1_152),
        "num_heads": num_heads,
        "layer_kinds": _layer_kinds(published),
        "window": window,
        "norm_eps": norm_eps,
        "max_seqlen": integer(published, "max_position_embeddings", 8_192),
        "activation": _activation(published, "hidden_activation", ACTIVATION_NAMES),
        "head_activation": _activation(published, "classifier_activation", HEAD_ACTIVATION_NAMES),
        "tied_decoder": flag(published, "tie_word_embeddings", default=True),
        **{own: flag(published, key, default=False) for own, key in BIASES.items()},
        **_thetas(published),
        **_scalings(published),
        **_token_ids(published, vocab_size),
    }


def classifier_fields(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ClassifierSettings.

    Raises:
        ConfigError: Labels that contradict each other, or an unknown pooling or problem.
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
    return {
        "labels": labels,
        "pooling": pooling,
        "problem": PROBLEMS[problem],
        "splitting": WordSplitting.from_published(published.get("word_splitting")),
        **_calibration(published),
    }


def _calibration(published: Mapping[str, Any]) -> dict[str, Any]:
    """What makes probabilities of outputs; other programs do not know the key."""
    found = published.get("calibration")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError("calibration: expected an object")
    thresholds = found.get("thresholds")
    if thresholds is not None:
        if not isinstance(thresholds, list):
            raise ConfigError("calibration.thresholds: expected a list of numbers")
        entries = {str(place): value for place, value in enumerate(thresholds)}
        thresholds = tuple(number(entries, place, 0.5) for place in entries)
    return {"temperature": number(found, "temperature", 1.0), "thresholds": thresholds}


def _every(gap: int, num_layers: int) -> tuple[str, ...]:
    return tuple("local" if i % gap else "global" for i in range(num_layers))


def _layer_kinds(published: Mapping[str, Any]) -> tuple[str, ...]:
    num_layers = integer(published, "num_hidden_layers", 22)
    if not 1 <= num_layers <= _MAX_LIST:
        raise ConfigError(f"num_hidden_layers: got {num_layers}, expected 1 to {_MAX_LIST}")
    every = integer(published, "global_attn_every_n_layers", 3)
    if every < 1:
        raise ConfigError(f"global_attn_every_n_layers: got {every}, expected 1 or more")
    layer_types = published.get("layer_types")
    if layer_types is None:
        return _every(every, num_layers)
    if not isinstance(layer_types, list) or not all(
        isinstance(x, str) and x in LAYER_KINDS for x in layer_types
    ):
        raise ConfigError(f"layer_types: expected a list of {' and '.join(map(repr, LAYER_KINDS))}")
    check_same("layers in layer_types", len(layer_types), "num_hidden_layers", num_layers)
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
    entry = _entry(parameters, layer_type)
    old = number(published, old_key, default)
    new = number(entry, "rope_theta", old)
    if published.get(old_key) is not None:
        check_same(f"{where}.rope_theta", new, old_key, old)
    return new


def _entry(parameters: Mapping[str, Any], layer_type: str) -> Mapping[str, Any]:
    entry = parameters.get(layer_type) or {}
    if not isinstance(entry, dict):
        raise ConfigError(f"rope_parameters.{layer_type}: expected an object")
    return entry


def _scalings(published: Mapping[str, Any]) -> dict[str, RopeScaling | None]:
    """How rotary positions are scaled; transformers 4 had one `rope_scaling` for all layers."""
    old = published.get("rope_scaling")
    if old is not None and not isinstance(old, dict):
        raise ConfigError("rope_scaling: expected an object")
    parameters = published.get("rope_parameters") or {}
    return {
        f"{kind}_scaling": read_scaling(
            {**_entry(parameters, layer_type), **(old or {})},
            "rope_scaling" if old else f"rope_parameters.{layer_type}",
            integer(published, "max_position_embeddings", 8_192),
        )
        for layer_type, kind in LAYER_KINDS.items()
    }


def _activation(
    published: Mapping[str, Any], key: str, table: Mapping[str, tuple[str, ...]]
) -> str:
    name = published.get(key)
    if name is None:
        return "gelu"
    for own, names in table.items():
        if name in names:
            return own
    known = ", ".join(name for names in table.values() for name in names)
    raise ConfigError(f"{key}: {name!r} is not supported; {known} are")


def _refuse_others(published: Mapping[str, Any]) -> None:
    if published.get("is_causal") or published.get("is_decoder"):
        key = "is_causal" if published.get("is_causal") else "is_decoder"
        raise ConfigError(f"{key}: a causal model; this package runs encoders")
    if published.get("quantization_config"):
        raise ConfigError(
            "quantization_config: quantized weights are not read; save the model in bfloat16"
        )


def _token_ids(published: Mapping[str, Any], vocab_size: int) -> dict[str, int]:
    """The special tokens' ids.

    transformers writes its defaults, the published ids, into the config of any vocabulary, also
    of one that is too small for them: there they count as absent, and the first ids stand in.
    """
    ids = {}
    for key, usual in PUBLISHED_IDS.items():
        token_id = integer(published, key, usual)
        ids[key] = unnamed_token_id(key, vocab_size) if token_id == usual else token_id
    return ids


def unnamed_token_id(key: str, vocab_size: int) -> int:
    """The id of a special token that a config does not name, in a vocabulary of this size."""
    usual = PUBLISHED_IDS[key]
    return usual if usual < vocab_size else list(PUBLISHED_IDS).index(key)


def _labels(published: Mapping[str, Any]) -> tuple[str, ...]:
    names = published.get("id2label")
    if names is None:
        count = integer(published, "num_labels", 2)
        if not 1 <= count <= _MAX_LIST:
            raise ConfigError(f"num_labels: got {count}, expected 1 to {_MAX_LIST}")
        names = {str(i): f"LABEL_{i}" for i in range(count)}
    if isinstance(names, dict):  # whole numbers are names too
        names = {key: str(x) if type(x) is int else x for key, x in names.items()}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ConfigError("id2label: expected an object of names")
    if names.keys() != {str(i) for i in range(len(names))}:
        raise ConfigError(f"id2label: expected the keys 0 to {len(names) - 1}, one per label")
    labels = tuple(names[str(i)] for i in range(len(names)))
    # label2id may lag behind, as transformers 4 writes it: id2label is what every reader shows.
    check_same("labels in id2label", len(labels), "num_labels", published.get("num_labels"))
    return labels
