"""The model that a fine-tuning starts from: the weights of a folder, and a new head if needed."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from modernbert.errors import SettingsError
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.encoder import Encoder
from modernbert.model.heads import HEADS, ClassifierSettings
from modernbert.model.initialize import initialize
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.tuning.recipe import RunSettings
from modernbert.training.optimizer import parameter_groups

M = TypeVar("M", bound=SavedModel)


def first_model(
    cls: Callable[[EncoderConfig, ClassifierSettings], M],
    settings: ClassifierSettings,
    folder_or_hub_id: str,
    *,
    seed: int,
) -> M:
    """Make a model for some labels that starts from the weights of another.

    The encoder is always kept, and so is the prediction block of any head. The last layer is drawn
    at random, unless it belongs to the same kind of model with the same labels.

    Args:
        cls: The class of the model.
        settings: The labels of the new head, and how it pools.
        folder_or_hub_id: The model to start from.
        seed: The seed of the new weights.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        ConfigError: The config is not ModernBERT's, or it contradicts itself.
    """
    source = _load_any(folder_or_hub_id)
    model = initialize(cls(source.config, settings), seed=seed)
    known = _tensors(source)
    if type(source) is not type(model) or source.settings != settings:
        known = {name: each for name, each in known.items() if not name.startswith("classifier.")}
    own = model.state_dict()
    own.update({name: tensor for name, tensor in known.items() if name in own})
    model.load_state_dict(own)
    return model


def require_layers(config: EncoderConfig, settings: RunSettings) -> None:
    """Refuse to freeze more layers than there are.

    Raises:
        SettingsError: There are fewer layers.
    """
    if settings.freeze_layers > config.num_layers:
        raise SettingsError(
            f"freeze_layers: got {settings.freeze_layers}, expected at most {config.num_layers}, "
            "the layers of the model"
        )


def freeze(model: nn.Module, settings: RunSettings) -> None:
    """Exclude from training what the settings freeze.

    Raises:
        SettingsError: There are fewer layers.
    """
    encoder = encoder_of(model)
    require_layers(encoder.config, settings)
    if settings.freeze_embeddings:
        encoder.embeddings.requires_grad_(False)
    for layer in encoder.layers[: settings.freeze_layers]:
        layer.requires_grad_(False)


def layer_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Return the groups of `parameter_groups` for each depth, with the factor of its learning rate.

    The head has the full rate, and each layer that of the layer above times `layer_decay`.
    """
    if layer_decay == 1:
        return parameter_groups(model, weight_decay)
    encoder = encoder_of(model)
    lower: list[nn.Module] = [encoder.embeddings, *encoder.layers]
    below = {id(parameter) for part in lower for parameter in part.parameters()}
    top = nn.ParameterList(each for each in model.parameters() if id(each) not in below)
    return [
        {**group, "rate_factor": layer_decay**distance}
        for distance, part in enumerate([top, *reversed(lower)])
        for group in parameter_groups(part, weight_decay)
    ]


def _load_any(folder_or_hub_id: str) -> Any:
    """Load the model of a folder as what it is, including its head if it is one of ours."""
    published = read_config_file(find_model(folder_or_hub_id, weights=True))
    architectures = published.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    for cls in HEADS:
        if cls.architecture() == named:
            return cls.from_pretrained(folder_or_hub_id)
    return Encoder.from_pretrained(folder_or_hub_id)


def _tensors(source: SavedModel) -> dict[str, Tensor]:
    prefix = "encoder." if isinstance(source, Encoder) else ""
    return {prefix + name: tensor for name, tensor in source.state_dict().items()}


def encoder_of(model: nn.Module) -> Encoder:
    """Return the encoder within a module."""
    return next(part for part in model.modules() if isinstance(part, Encoder))
