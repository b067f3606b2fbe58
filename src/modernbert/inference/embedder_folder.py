"""How an encoder is used for embeddings, as sentence-transformers writes it into a folder.

modules.json                         which steps there are: transformer, pooling, normalization
sentence_bert_config.json            the longest sequence
1_Pooling/config.json                how a text's vectors become one
config_sentence_transformers.json    prompts, and how vectors are compared
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.embedder_settings import EmbedderSettings

MODULES_FILE = "modules.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
SETTINGS_FILE = "config_sentence_transformers.json"
CONFIG_FILE = "config.json"
_POOLING_FOLDER = "1_Pooling"
_NORMALIZE_FOLDER = "2_Normalize"

_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_settings(folder: Path) -> tuple[Path, EmbedderSettings]:
    """The folder of the encoder within a model's folder, and how it is used.

    A folder without modules.json is a plain model: pooling is what its config.json says of
    classifiers, or the mean.

    Raises:
        ModelFolderError: a file that cannot be read, or a step that is not supported.
        ConfigError: a pooling that is not supported.
    """
    if not (folder / MODULES_FILE).is_file():
        config = _read(folder / CONFIG_FILE) or {}
        return folder, EmbedderSettings(pooling=config.get("classifier_pooling", "mean"))
    modules = list(_modules(folder))
    encoder_folder = folder / modules[0][1]
    limit = (_read(encoder_folder / TRANSFORMER_FILE) or {}).get("max_seq_length")
    pooling_file = folder / modules[1][1] / CONFIG_FILE
    fields = _pooling_fields(pooling_file)
    settings = _read(folder / SETTINGS_FILE) or {}
    return encoder_folder, EmbedderSettings(
        **fields,
        normalize=len(modules) > 2,
        max_seqlen=limit,
        prompts={name: text or "" for name, text in (settings.get("prompts") or {}).items()},
        default_prompt_name=settings.get("default_prompt_name"),
        similarity=settings.get("similarity_fn_name") or "cosine",
    )


def write_settings(folder: Path, settings: EmbedderSettings, hidden_size: int) -> None:
    """Write the files, so that sentence-transformers of any version reads them.

    Raises:
        ModelFolderError: the folder cannot be written.
    """
    files = {
        MODULES_FILE: list(_written_modules(settings.normalize)),
        TRANSFORMER_FILE: {"max_seq_length": settings.max_seqlen, "do_lower_case": False},
        f"{_POOLING_FOLDER}/{CONFIG_FILE}": {
            "word_embedding_dimension": hidden_size,
            **{key: mode == settings.pooling for key, mode in _OLD_POOLING_KEYS.items()},
            "include_prompt": settings.pool_prompt,
        },
        SETTINGS_FILE: {
            "model_type": "SentenceTransformer",
            "prompts": dict(settings.prompts),
            "default_prompt_name": settings.default_prompt_name,
            "similarity_fn_name": settings.similarity,
        },
    }
    try:
        with updated_folder(folder) as partial:
            if settings.normalize:
                (partial / _NORMALIZE_FOLDER).mkdir()
            for name, content in files.items():
                (partial / name).parent.mkdir(exist_ok=True)
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """The kind and the path of each step, when they are a sequence that is supported."""
    entries = _read(folder / MODULES_FILE)
    path = folder / MODULES_FILE
    try:
        found = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (KeyError, TypeError):
        raise ModelFolderError(f"{path}: expected a list of steps with type and path") from None
    kinds = [kind for kind, _ in found]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelFolderError(
            f"{path}: the steps {', '.join(kinds)} are not supported; "
            "Transformer, Pooling and then, or not, Normalize are"
        )
    for _, place in found:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ModelFolderError(f"{path}: the path {place!r} leads out of the folder")
    yield from found


def _written_modules(normalize: bool) -> Iterator[dict[str, Any]]:
    # The names of these classes before version 6, which later versions read as well.
    steps = [("Transformer", ""), ("Pooling", _POOLING_FOLDER)]
    steps += [("Normalize", _NORMALIZE_FOLDER)] if normalize else []
    for index, (kind, path) in enumerate(steps):
        name = f"sentence_transformers.models.{kind}"
        yield {"idx": index, "name": str(index), "path": path, "type": name}


def _pooling_fields(path: Path) -> dict[str, Any]:
    config = _read(path)
    if not isinstance(config, dict):
        raise ModelFolderError(f"{path}: missing; expected how the tokens are pooled")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLING_KEYS.items() if config.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes not in (["cls"], ["mean"]):
        raise ConfigError(f"{path}: pooling {' and '.join(modes)} is not supported; cls or mean is")
    return {"pooling": modes[0], "pool_prompt": bool(config.get("include_prompt", True))}


def _read(path: Path) -> Any:
    """The content of a JSON file; None when there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not a readable JSON file: {error}") from None
