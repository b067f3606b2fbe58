"""How an encoder is used for embeddings, as sentence-transformers writes it into a folder.

See `foreign_files` for the files. The steps are a transformer, a pooling, and any number of layers.
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from modernbert.errors import ModelFolderError
from modernbert.inference.embedder_settings import EmbedderSettings
from modernbert.inference.foreign_files import (
    POOLING_KEYS,
    EmbedderFile,
    PoolingFile,
    TransformerFile,
    read_prompt_file,
    refuse_steps,
    write_files,
)
from modernbert.inference.foreign_layers import LAYERS, read_layers, write_weights, written_layer
from modernbert.json_files import read_object, read_settings
from modernbert.kinds import (
    CONFIG_FILE,
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    Module,
    read_modules,
)
from modernbert.model.vector_layers import Normalize

_POOLING_FOLDER = "1_Pooling"
_SUPPORTED = f"Transformer, Pooling and then, or not, {', '.join(LAYERS)} are"


class PooledFolder(NamedTuple):
    """What a folder says of one vector a text.

    Attributes:
        encoder: The folder of the encoder and its tokenizer.
        pooling: How the vectors of the tokens become one.
        layers: What comes after that.
        max_seqlen: The longest sequence, in tokens; None where it does not say.
        is_lowered: Whether texts are lowercased.
    """

    encoder: Path
    pooling: PoolingFile
    layers: list[nn.Module]
    max_seqlen: int | None
    is_lowered: bool


def read_pooled_folder(folder: Path) -> PooledFolder:
    """Read the steps of a folder whose second is a Pooling.

    Raises:
        ModelFolderError: A file that cannot be used, or a step that is not supported.
    """
    modules = read_modules(folder)
    kinds = [each.kind for each in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= set(LAYERS):
        raise refuse_steps(folder, modules, _SUPPORTED)
    place, pooling = (folder / each.path for each in modules[:2])
    if not (pooling / CONFIG_FILE).exists():
        raise ModelFolderError(f"{pooling / CONFIG_FILE}: missing; expected how tokens are pooled")
    transformer = read_settings(TransformerFile, place / TRANSFORMER_FILE)
    return PooledFolder(
        place,
        read_settings(PoolingFile, pooling / CONFIG_FILE),
        read_layers(folder, modules[2:], "sentence_embedding"),
        transformer.max_seq_length,
        transformer.do_lower_case,
    )


def read_embedder(folder: Path) -> tuple[PooledFolder, EmbedderSettings]:
    """Read what a model's folder says, and the layers behind its pooling.

    A folder without modules.json is a plain model: pooling is what its config.json says of
    classifiers, or the mean.

    Raises:
        ModelFolderError: A file that cannot be used, or a step that is not supported.
        ConfigError: Settings that contradict each other.
    """
    if not (folder / MODULES_FILE).exists():
        pooling: Any = read_object(folder / CONFIG_FILE).get("classifier_pooling") or "mean"
        plain = PooledFolder(folder, PoolingFile(pooling_mode=(pooling,)), [], None, False)
        return plain, EmbedderSettings(pooling=pooling)
    found = read_pooled_folder(folder)
    said = read_prompt_file(EmbedderFile, folder)
    normalize = bool(found.layers) and isinstance(found.layers[-1], Normalize)
    poolings = found.pooling.poolings
    settings = EmbedderSettings(
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
        pooling=poolings[0] if len(poolings) == 1 else poolings,
        pool_prompt=found.pooling.include_prompt,
        normalize=normalize,
        max_seqlen=found.max_seqlen,
        similarity=said.similarity_fn_name,
        truncate_dim=said.truncate_dim,
    )
    return found._replace(layers=found.layers[:-1] if normalize else found.layers), settings


def read_embedder_settings(folder: Path) -> tuple[Path, EmbedderSettings]:
    """The folder of the encoder within a model's, and how it is used; see `read_embedder`."""
    found, settings = read_embedder(folder)
    return found.encoder, settings


def write_embedder(
    folder: Path, settings: EmbedderSettings, hidden_size: int, layers: tuple[nn.Module, ...] = ()
) -> None:
    """Write everything but the encoder's and the tokenizer's own files.

    sentence-transformers of any version reads them, joined poolings and layers that it has.

    Raises:
        ModelFolderError: The folder cannot be written.
    """
    said: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity,
    }
    if settings.truncate_dim is not None:
        said["truncate_dim"] = settings.truncate_dim
    files: dict[str, Any] = {
        TRANSFORMER_FILE: {"max_seq_length": settings.max_seqlen, "do_lower_case": False},
        f"{_POOLING_FOLDER}/{CONFIG_FILE}": {
            "word_embedding_dimension": hidden_size,
            **_written_poolings(settings),
            "include_prompt": settings.pool_prompt,
        },
        SETTINGS_FILE: said,
    }
    # The names of these classes before version 6, which later versions read as well.
    home = "sentence_transformers.models"
    modules = [Module(type=f"{home}.Transformer")]
    modules.append(Module(type=f"{home}.Pooling", path=_POOLING_FOLDER))
    for layer in (*layers, *([Normalize()] if settings.normalize else [])):
        kind, config = written_layer(layer, "sentence_embedding")
        module = Module(type=f"{home}.{kind}", path=f"{len(modules)}_{kind}")
        modules.append(module)
        files |= {f"{module.path}/{CONFIG_FILE}": config} if config else {}
    write_files(folder, modules, files)
    try:
        for module, layer in zip(modules[2:], layers, strict=False):
            write_weights(layer, folder / module.path)
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None


def _written_poolings(settings: EmbedderSettings) -> dict[str, Any]:
    """The keys of all versions; joined poolings in another order need those of the newest."""
    kinds = (settings.pooling,) if isinstance(settings.pooling, str) else settings.pooling
    if [each for each in POOLING_KEYS.values() if each in kinds] != list(kinds):
        return {"pooling_mode": list(kinds)}
    return {key: mode in kinds for key, mode in POOLING_KEYS.items()}
