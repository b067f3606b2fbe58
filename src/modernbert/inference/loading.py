"""`load`, the right object for any folder; and a model with its tokenizer, ready to compute."""

from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

from modernbert.data.shards import ShardFolder
from modernbert.devices import best_device
from modernbert.errors import InputError, ModelFolderError
from modernbert.hashes import HASHES_FILE, FileHash
from modernbert.hub import find_folder
from modernbert.inference.index import Index
from modernbert.inference.index_files import read_vectors
from modernbert.kinds import MODELS, Kind, ModelKind, kind_of, model_folder, model_kind
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import find_model
from modernbert.model.pretrained import SavedModel
from modernbert.reading import user_path
from modernbert.tokenizer.tokenizer import Tokenizer

_OTHERS: dict[Kind, Callable[[Path], Any]] = {
    "tokenizer": Tokenizer.from_pretrained,
    "shards": ShardFolder.open,
    "index": Index.open,
    "vectors": read_vectors,
}
_STRIDE = 128
M = TypeVar("M", bound=SavedModel)


def load_for_inference(
    cls: type[M],
    folder_or_hub_id: Path | str,
    precision: PrecisionChoice,
    wanted: tuple[ModelKind, ...] = (),
) -> tuple[M, Tokenizer]:
    """Load a model, on a GPU if there is one, and its tokenizer.

    Args:
        cls: The class of the model.
        folder_or_hub_id: The folder of the model or of a run, or a hub id.
        precision: The precision to compute in.
        wanted: The kinds that the model may have; any kind if empty.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
        ConfigError: The device does not support the precision.
        SettingsError: As `best_device`.
    """
    folder = find_model(folder_or_hub_id, weights=True, wanted=wanted)
    model = cls.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    return model.to(best_device()).for_inference(precision), tokenizer


def device_of(model: SavedModel) -> torch.device:
    """Return the device that a model computes on, even if its layers are packed."""
    return next(model.parameters()).device


def require_same_vocabulary(config: EncoderConfig, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that was made for another model.

    Raises:
        InputError: The model does not know an id, or it has another meaning in the model.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"tokenizer: its vocab_size is {tokenizer.vocab_size}, but the model's is "
            f"{config.vocab_size}; use the tokenizer that the model was trained with"
        )


def longest_sequence(config: EncoderConfig, tokenizer: Tokenizer, asked: int | None = None) -> int:
    """Return how many tokens of a text are read: what is asked for, or what the model can read.

    Raises:
        InputError: The model cannot read that many.
    """
    if asked is None:
        return min(config.max_seqlen, tokenizer.model_max_length)
    if not isinstance(asked, int) or not 4 <= asked <= config.max_seqlen:
        raise InputError(f"max_seqlen: got {asked!r}, expected 4 to {config.max_seqlen}")
    return asked


def window_overlap(max_seqlen: int, asked: int | None = None) -> int:
    """Return how many tokens neighbouring windows share: by default a quarter, at most 128.

    Raises:
        InputError: No number of tokens; whether it is too large is known with the template.
    """
    if asked is None:
        return min(_STRIDE, max_seqlen // 4)
    if not isinstance(asked, int) or asked < 0:
        raise InputError(f"stride: got {asked!r}, expected a number of tokens from 0")
    return asked


def folder_fingerprint(folder: Path) -> str:
    """Return the sha256 (hex) of a model's weights and settings, without its other files."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        is_model = path.suffix in (".json", ".safetensors") and path.name != HASHES_FILE
        if is_model and path.is_file():
            content = FileHash.of(path).sha256
            digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def load(folder_or_hub_id: Path | str, *, precision: PrecisionChoice = "auto") -> Any:
    """Load a folder as what it is.

    Args:
        folder_or_hub_id: A folder here, or the id of a model on the hub. That of a run stands for
            its model.
        precision: What a model computes in; the others take none.

    Returns:
        For a model the object that uses it, of the class that `kinds.MODELS` names, such as an
        `Embedder`; a `Tokenizer`, an `Index`, the `ShardFolder` of token shards, or an array
        (rows, dim) for a file of vectors.

    Raises:
        InputError: A path at which nothing is, or nothing that is known.
        ModelFolderError: A kind of folder that there is nothing to do with, or a broken one.
        ModernBertError: As `from_pretrained` of the class.
    """
    path = user_path(folder_or_hub_id)
    if not path.exists():
        path = find_folder(
            folder_or_hub_id,
            patterns=["*.json", "*.safetensors"],
            content="a model",
            error=ModelFolderError,
        )
    if (other := _OTHERS.get(kind_of(path))) is not None:
        return other(path)
    path = model_folder(path)
    return class_for(model_kind(path)).from_pretrained(path, precision=precision)


def class_for(kind: ModelKind) -> Any:
    """Return the class that uses a kind of model, imported now."""
    module, _, name = MODELS[kind].used_as.partition(":")
    return getattr(import_module(f"modernbert.inference.{module}"), name)
