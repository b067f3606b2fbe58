"""How an encoder is used for embeddings, as sentence-transformers writes it into a folder.

modules.json                         which steps there are: transformer, pooling, normalization
sentence_bert_config.json            the longest sequence
1_Pooling/config.json                how a text's vectors become one
config_sentence_transformers.json    prompts, and how vectors are compared
"""

from pathlib import Path
from typing import Any

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.inference.embedder_settings import EmbedderSettings
from modernbert.inference.foreign_files import refuse_steps, write_files
from modernbert.json_files import read_json, read_object
from modernbert.kinds import (
    CONFIG_FILE,
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    Module,
    read_modules,
)

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
        config = read_object(folder / CONFIG_FILE)
        return folder, EmbedderSettings(pooling=config.get("classifier_pooling", "mean"))
    modules = read_modules(folder)
    kinds = [each.kind for each in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise refuse_steps(folder, modules, "Transformer, Pooling and then, or not, Normalize are")
    encoder_folder = folder / modules[0].path
    limit = read_object(encoder_folder / TRANSFORMER_FILE).get("max_seq_length")
    fields = _pooling_fields(folder / modules[1].path / CONFIG_FILE)
    settings = read_object(folder / SETTINGS_FILE)
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
    # The names of these classes before version 6, which later versions read as well.
    steps = [("Transformer", ""), ("Pooling", _POOLING_FOLDER)]
    steps += [("Normalize", _NORMALIZE_FOLDER)] if settings.normalize else []
    modules = [
        Module(type=f"sentence_transformers.models.{kind}", path=path) for kind, path in steps
    ]
    write_files(folder, modules, files)


def _pooling_fields(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelFolderError(f"{path}: missing; expected how the tokens are pooled")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLING_KEYS.items() if config.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes not in (["cls"], ["mean"]):
        raise ConfigError(f"{path}: pooling {' and '.join(modes)} is not supported; cls or mean is")
    return {"pooling": modes[0], "pool_prompt": bool(config.get("include_prompt", True))}
