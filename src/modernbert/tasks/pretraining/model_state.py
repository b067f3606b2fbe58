"""A masked language model as a folder has it: a finished one, or a run's checkpoint."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from modernbert.errors import CheckpointError
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import load, parse
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import checkpoint

_RECIPE_FILE = "recipe.toml"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a run's checkpoint."""
    return (folder / checkpoint.MANIFEST).is_file() and not (folder / "config.json").exists()


def load_model(folder: Path) -> MaskedLanguageModel:
    """The model of a model folder, or of a checkpoint, which is verified first.

    Raises:
        ModelFolderError: a model folder that cannot be used.
        CheckpointError: a damaged checkpoint, or one of no pretraining.
    """
    if not is_checkpoint(folder):
        return MaskedLanguageModel.from_pretrained(folder)
    if fault := checkpoint.find_fault(folder):
        raise CheckpointError(f"{folder}: is damaged: {fault}")
    with torch.device("meta"):
        model = MaskedLanguageModel(_config(folder))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    model.load_state_dict(tensors, strict=False, assign=True)
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, or of the run that a checkpoint is of.

    Raises:
        TokenizerError: no usable tokenizer.
        SettingsError: the checkpoint's run has no recipe.
    """
    if not is_checkpoint(folder):
        return Tokenizer.from_pretrained(folder)
    recipe = load(PretrainingRecipe, folder.parent.parent / _RECIPE_FILE)
    return Tokenizer.from_pretrained(recipe.tokenizer)


def _config(folder: Path) -> EncoderConfig:
    """The numbers of the model in the phase in which a checkpoint was saved."""
    phase = _read(folder / "progress.json")["phase"]
    identity = _read(folder / checkpoint.MANIFEST)["identity"]
    phases = list(identity.get("phases", {}).values())
    if identity.get("task") != "pretraining" or phase >= len(phases):
        raise CheckpointError(f"{folder}: is of no pretraining")
    return parse(EncoderConfig, phases[phase]["model"], where=str(folder))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
