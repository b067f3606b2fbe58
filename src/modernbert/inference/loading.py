"""A model and its tokenizer from one folder, on the best device and ready to compute."""

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
    """Load a model, onto a GPU where there is one, and the tokenizer beside it.

    Args:
        cls: The class of the model.
        folder_or_hub_id: The folder of both, or of a run, or an id on the hub.
        precision: What to compute in.
        wanted: What the model is to be for; anything when empty.

    Raises:
        ModelFolderError: No such model, or one that cannot be used.
        TokenizerError: No tokenizer beside it, or one that cannot be used.
        ConfigError: A precision that cannot be had here.
    """
    folder = find_model(folder_or_hub_id, weights=True, wanted=wanted)
    model = cls.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).for_inference(precision), tokenizer


def device_of(model: SavedModel) -> torch.device:
    """Where a model computes; also of one whose layers are packed."""
    return next(model.parameters()).device


def require_same_vocabulary(config: EncoderConfig, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that was made for another model.

    Raises:
        InputError: Ids that the model does not know, or that mean something else to it.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"tokenizer: its vocab_size is {tokenizer.vocab_size}, but the model's is "
            f"{config.vocab_size}; use the tokenizer that the model was trained with"
        )


def longest_sequence(config: EncoderConfig, tokenizer: Tokenizer, asked: int | None = None) -> int:
    """How many tokens of a text are read: what is asked for, at most what the model can.

    Raises:
        InputError: A number that the model cannot read.
    """
    if asked is None:
        return min(config.max_seqlen, tokenizer.model_max_length)
    if not 4 <= asked <= config.max_seqlen:
        raise InputError(f"max_seqlen: got {asked}, expected 4 to {config.max_seqlen}")
    return asked


def folder_fingerprint(folder: Path) -> str:
    """The sha256 (hex) of a model's folder: its weights and its settings, not its other files."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        is_model = path.suffix in (".json", ".safetensors") and path.name != HASHES_FILE
        if is_model and path.is_file():
            content = FileHash.of(path).sha256
            digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()
