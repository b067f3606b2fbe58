"""Models of a pretraining: the first one, those of its states, and the delivered one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from modernbert.errors import CheckpointError, ConfigError, TokenizerError
from modernbert.json_files import read_object
from modernbert.kinds import TOKENIZER_FILE
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import grow, initialize
from modernbert.settings import load, parse
from modernbert.tasks.pretraining.data import PretrainingData
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tasks.pretraining.recipe_tables import ModelSettings
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import is_unused, named_slots
from modernbert.training import checkpoint
from modernbert.training.distributed import Group
from modernbert.training.tensors import gathered, is_sharded


def starting_model(data: PretrainingData) -> MaskedLanguageModel:
    """Return the model before a run's first step, each time the same.

    Args:
        data: Of the first phase.

    Raises:
        ModelFolderError: The model to start or to grow from cannot be read.
        ConfigError: A model cannot grow to the recipe's sizes, or was trained with another
            tokenizer.
    """
    settings = data.phase.model
    if settings.grow_from is not None:
        return grow(MaskedLanguageModel.from_pretrained(settings.grow_from), data.config)
    if settings.start is None:
        return initialize(MaskedLanguageModel(data.config), seed=settings.seed)
    model = MaskedLanguageModel(data.config)
    model.load_state_dict(MaskedLanguageModel.from_pretrained(settings.start).state_dict())
    draw_new_tokens(model, settings.start, data.tokenizer)
    return model


@torch.no_grad()
def draw_new_tokens(model: MaskedLanguageModel, start: str, tokenizer: Tokenizer) -> None:
    """Let tokens that took a free slot of the vocabulary begin as the mean of all that were learnt.

    The row of a free slot has been trained to be never predicted; from the mean a new token is as
    likely as an average one. A model's folder without a tokenizer is taken as it is.

    Raises:
        ConfigError: The tokenizer is another one than the model's, apart from such tokens.
    """
    if Path(start).is_dir() and not (Path(start) / TOKENIZER_FILE).exists():
        return
    before = Tokenizer.from_pretrained(start)
    try:
        new = named_slots(before, tokenizer)
    except TokenizerError as error:
        raise ConfigError(
            f"{start}: another tokenizer than the recipe's: {error}; take the model's own, or one "
            "that `modernbert tokenizer extend` made of it"
        ) from None
    if not new:
        return
    ids = range(before.vocab_size)
    learnt = torch.tensor([each for each in ids if not is_unused(before.id_to_token(each))])
    for weights in (model.decoder_weight, model.decoder_bias):
        weights[new] = weights[learnt].double().mean(0).to(weights.dtype)


def first_weights(settings: ModelSettings) -> Any:
    """Return what those weights depend on, besides the model's numbers, as JSON values."""
    if settings.grow_from is not None:
        return {"grown_from": settings.grow_from}
    return settings.start or {"seed": settings.seed}


_RECIPE_FILE = "recipe.toml"


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a run's checkpoint."""
    return (folder / checkpoint.MANIFEST).is_file() and not (folder / "config.json").exists()


def load_model(folder: Path) -> MaskedLanguageModel:
    """Return the model of a model folder, or of a checkpoint, which is verified first.

    Raises:
        ModelFolderError: A model folder that cannot be used.
        CheckpointError: A damaged checkpoint, or one of no pretraining.
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
    """Return the tokenizer of a model folder, or of the run that a checkpoint is of.

    Raises:
        TokenizerError: No usable tokenizer.
        SettingsError: The checkpoint's run has no recipe.
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
        raise CheckpointError(f"{folder}: does not belong to a pretraining")
    return parse(EncoderConfig, phases[phase]["model"], where=str(folder))


def _read(path: Path) -> dict[str, Any]:
    return read_object(path, CheckpointError)


@dataclass(frozen=True)
class InFirstProcess:
    """Calls something with the model in process 0; all processes must call this.

    Attributes:
        action: What is to be done with a model, and perhaps more.
    """

    group: Group
    action: Callable[..., None]

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """Do it, for all.

        Raises:
            ModernBertError: What the action raises.
            ProcessError: It raised in process 0, so that the others cannot go on.
        """
        model = whole_model(module, self.group)
        self.group.first(lambda: self.action(model, *arguments))


def whole_model(module: nn.Module, group: Group) -> nn.Module:
    """Return, in process 0, the model with all weights: a copy on the host if it is sharded."""
    if not any(is_sharded(parameter) for parameter in module.parameters()):
        return module
    assert isinstance(module, MaskedLanguageModel)
    tensors = gathered(checkpoint.module_tensors(module), group)
    if not group.is_first:
        return module
    model = MaskedLanguageModel(module.config)
    model.load_state_dict(tensors)
    return model
