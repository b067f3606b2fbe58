"""Loading a model and its tokenizer from one folder, on the best device and ready to compute."""

from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch

from modernbert.errors import InputError
from modernbert.hashes import HASHES_FILE, FileHash
from modernbert.kinds import ModelKind
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import find_model
from modernbert.model.precision import PrecisionChoice
from modernbert.model.pretrained import SavedModel
from modernbert.tokenizer.tokenizer import Tokenizer

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
    """
    folder = find_model(folder_or_hub_id, weights=True, wanted=wanted)
    model = cls.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).for_inference(precision), tokenizer


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
    if not 4 <= asked <= config.max_seqlen:
        raise InputError(f"max_seqlen: got {asked}, expected 4 to {config.max_seqlen}")
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
