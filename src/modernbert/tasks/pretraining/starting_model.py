"""The model that a pretraining begins with: drawn at random, grown from a smaller one, or given."""

from pathlib import Path
from typing import Any

import torch

from modernbert.errors import ConfigError, TokenizerError
from modernbert.kinds import TOKENIZER_FILE
from modernbert.model.grow import grow
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.tasks.pretraining.data import PretrainingData
from modernbert.tasks.pretraining.model_settings import ModelSettings
from modernbert.tokenizer.extend import is_unused, named_slots
from modernbert.tokenizer.tokenizer import Tokenizer


def starting_model(data: PretrainingData) -> MaskedLanguageModel:
    """The model before a run's first step, each time the same.

    data: of the first phase.

    Raises:
        ModelFolderError: the model to start or to grow from cannot be read.
        ConfigError: a model cannot grow to the recipe's sizes, or was trained with another
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
        ConfigError: the tokenizer is another one than the model's, apart from such tokens.
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
    """What those weights depend on, besides the model's numbers, as JSON values."""
    if settings.grow_from is not None:
        return {"grown_from": settings.grow_from}
    return settings.start or {"seed": settings.seed}
