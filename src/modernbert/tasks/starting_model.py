"""The model that a pretraining begins with: drawn at random, grown from a smaller one, or given."""

from typing import Any

from modernbert.model.grow import grow
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.tasks.model_settings import ModelSettings
from modernbert.tasks.pretraining_data import PretrainingData


def starting_model(data: PretrainingData) -> MaskedLanguageModel:
    """The model before a run's first step, each time the same.

    data: of the first phase.

    Raises:
        ModelFolderError: the model to start or to grow from cannot be read.
        ConfigError: a model cannot grow to the recipe's sizes.
    """
    settings = data.phase.model
    if settings.grow_from is not None:
        return grow(MaskedLanguageModel.from_pretrained(settings.grow_from), data.config)
    if settings.start is None:
        return initialize(MaskedLanguageModel(data.config), seed=settings.seed)
    model = MaskedLanguageModel(data.config)
    model.load_state_dict(MaskedLanguageModel.from_pretrained(settings.start).state_dict())
    return model


def first_weights(settings: ModelSettings) -> Any:
    """What those weights depend on, besides the model's numbers, as JSON values."""
    if settings.grow_from is not None:
        return {"grown_from": settings.grow_from}
    return settings.start or {"seed": settings.seed}
