"""First weights: drawn at random, taken over from another head, or grown from a smaller model.

    weight                                      distribution
    ------------------------------------------  ------------------------------------------------
    token embedding, Wqkv, Wi                   normal, sigma 0.02, cut at 2 sigma
    Wo of attention and of the MLP              normal, sigma 0.02 / sqrt(2 x layers), cut alike
    head.dense                                  as Wo
    classifier                                  normal, sigma hidden_size^-0.5, cut alike
    norms                                       1
    biases                                      0

The paper's Megatron initialisation (P section 2.2.2 and its code). Its code draws head.dense with
sigma 0.02, transformers with the smaller one that stands here.

Along every axis the old weights stand in the middle and repeat around it, as in Phi; nothing is
rescaled. Queries, keys, values and the two halves of the gated MLP are tiled each on their own, and
the axis of attention heads head by head, so that no head is cut and its rotary pairs stay pairs.
Where both models have an even difference of heads, as all published sizes do, that is the paper's
rule to the number.

    axis                                    of these weights
    --------------------------------------  -----------------------------------------------------
    width of the residual stream            every matrix, norms
    heads                                   rows of q, k, v; columns of attention's Wo
    width of the gated MLP                  rows of each half of Wi; columns of the MLP's Wo
    layers                                  by one of two maps, see `grow`
    vocabulary                              unchanged
"""

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from modernbert.errors import ConfigError, GrowthWarning
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.encoder import Encoder
from modernbert.model.heads import HEADS, ClassifierSettings, MaskedLanguageModel
from modernbert.model.pretrained import SavedModel

STANDARD_DEVIATION = 0.02
CUTOFF = 2.0  # in standard deviations

M = TypeVar("M", bound=SavedModel)


@torch.no_grad()
def initialize(module: M, *, seed: int) -> M:
    """Draw all weights of a model, in place; equal seeds give equal weights on every device.

    Returns the module itself.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.copy_(_draw(name, parameter.shape, module.config, generator))
    return module


def _draw(
    name: str, shape: torch.Size, config: EncoderConfig, generator: torch.Generator
) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    sigma = _standard_deviation(name, config)
    weight = torch.empty(shape)
    return nn.init.trunc_normal_(
        weight, std=sigma, a=-CUTOFF * sigma, b=CUTOFF * sigma, generator=generator
    )


def _standard_deviation(name: str, config: EncoderConfig) -> float:
    if name.endswith("classifier.weight"):
        return float(config.hidden_size**-0.5)
    if name.endswith(("Wo.weight", "head.dense.weight")):
        return float(STANDARD_DEVIATION / (2 * config.num_layers) ** 0.5)
    return STANDARD_DEVIATION


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
    prefix = "encoder." if isinstance(source, Encoder) else ""
    known = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    if type(source) is not type(model) or source.settings != settings:
        known = {name: each for name, each in known.items() if not name.startswith("classifier.")}
    own = model.state_dict()
    own.update({name: tensor for name, tensor in known.items() if name in own})
    model.load_state_dict(own)
    return model


def _load_any(folder_or_hub_id: str) -> Any:
    """Load the model of a folder as what it is, including its head if it is one of ours."""
    published = read_config_file(find_model(folder_or_hub_id, weights=True))
    architectures = published.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    for cls in HEADS:
        if cls.architecture() == named:
            return cls.from_pretrained(folder_or_hub_id)
    return Encoder.from_pretrained(folder_or_hub_id)


LayerMap = Literal["kind", "paper"]

TRAINED_THETA = 10_000.0


class _Axes(NamedTuple):
    """Which old entry each new one takes, along each axis that may grow."""

    width: Tensor
    heads: Tensor
    mlp: Tensor


def grow(
    small: MaskedLanguageModel, config: EncoderConfig, *, layer_map: LayerMap = "kind"
) -> MaskedLanguageModel:
    """Make a model of a larger config by tiling the weights of a smaller one (P section 2.2).

    The new model does not compute what the small one did; it has to be trained. The paper grows its
    model at the end of the first phase, before the context is extended.
    Deviation: by default a layer starts from the nearest old layer of the same kind. The map of the
    paper starts 6 of the 10 global layers of large from local ones.

    Args:
        small: The smaller model.
        config: The config of the new model.
        layer_map: "kind" for the old layer of the same kind at the nearest relative depth, or
            "paper" for round(i x old / new), whatever the kind.

    Raises:
        ConfigError: The config is smaller, or has another vocabulary or head size.
    """
    _check(small.config, config)
    axes = _axes(small.config, config)
    layers = layer_indices(small.config.layer_kinds, config.layer_kinds, layer_map)
    old = {name: parameter.detach() for name, parameter in small.named_parameters()}
    with torch.device("meta"):
        large = MaskedLanguageModel(config)
    grown = {name: _grown(name, old, layers, axes) for name, _ in large.named_parameters()}
    large.load_state_dict(grown, assign=True)
    return large


def centre_indices(old: int, new: int) -> list[int]:
    """Return which of `old` entries each of `new` ones takes: all in the middle, then around.

    >>> centre_indices(3, 7)
    [1, 2, 0, 1, 2, 0, 1]
    """
    return [(i - (new - old) // 2) % old for i in range(new)]


def layer_indices(
    old: Sequence[LayerKind], new: Sequence[LayerKind], layer_map: LayerMap
) -> list[int]:
    """Return which old layer each new one starts from; within a kind, in the old order.

    >>> layer_indices(["global", "local"], ["global", "local", "global", "local"], "kind")
    [0, 1, 0, 1]
    >>> layer_indices(["global", "local"], ["global", "local", "global", "local"], "paper")
    [0, 0, 1, 1]

    Raises:
        ConfigError: No such map.
    """
    if layer_map == "kind":
        return [_nearest(i, kind, old, len(new)) for i, kind in enumerate(new)]
    if layer_map == "paper":
        # A Fraction rounds halves to even without the errors of floating point.
        return [min(round(Fraction(i * len(old), len(new))), len(old) - 1) for i in range(len(new))]
    raise ConfigError(f"layer_map: got {layer_map!r}, expected 'kind' or 'paper'")


def _nearest(index: int, kind: LayerKind, old: Sequence[LayerKind], num_new: int) -> int:
    """The old layer of a kind, of any kind where it has none, at about the same relative depth.

    The first layer is at depth 0 and the last at depth 1; of two equally near the lower is taken.
    """
    candidates = [j for j, old_kind in enumerate(old) if old_kind == kind] or range(len(old))
    return min(candidates, key=lambda j: abs(j * (num_new - 1) - index * (len(old) - 1)))


def _check(old: EncoderConfig, new: EncoderConfig) -> None:
    for name in ("hidden_size", "intermediate_size", "num_layers"):
        if getattr(new, name) < getattr(old, name):
            raise ConfigError(
                f"{name}: got {getattr(new, name)}, expected {getattr(old, name)} or more: "
                "a model can only grow"
            )
    for name in ("vocab_size", "head_size"):
        if getattr(new, name) != getattr(old, name):
            raise ConfigError(
                f"{name}: got {getattr(new, name)}, expected the small model's {getattr(old, name)}"
            )
    if old.global_theta != TRAINED_THETA:
        warnings.warn(
            f"the small model's global theta is {old.global_theta:g}, not {TRAINED_THETA:g}: its "
            "context was extended; a model is better grown before that",
            GrowthWarning,
            stacklevel=3,
        )


def _axes(old: EncoderConfig, new: EncoderConfig) -> _Axes:
    heads = torch.tensor(centre_indices(old.num_heads, new.num_heads))
    entries = heads[:, None] * old.head_size + torch.arange(old.head_size)
    return _Axes(
        width=torch.tensor(centre_indices(old.hidden_size, new.hidden_size)),
        heads=entries.flatten(),
        mlp=torch.tensor(centre_indices(old.intermediate_size, new.intermediate_size)),
    )


def _grown(name: str, old: dict[str, Tensor], layers: Sequence[int], axes: _Axes) -> Tensor:
    """The weights of one parameter of the larger model, by its name."""
    if name.startswith("encoder.layers."):
        _, _, index, part = name.split(".", maxsplit=3)
        source = f"encoder.layers.{layers[int(index)]}.{part}"
        if source not in old:  # the attention norm, which the first layer does without
            return old["head.norm.weight"].new_ones(len(axes.width))
        return _tiled(part, old[source], axes)
    return _tiled(name, old[name], axes)


def _tiled(part: str, weight: Tensor, axes: _Axes) -> Tensor:
    width, heads, mlp = axes
    if part == "decoder_bias":
        return weight.clone()
    if weight.ndim == 1:
        return weight[width]
    if part.endswith("tok_embeddings.weight"):
        return weight[:, width]
    rows, columns = {
        "attn.Wqkv.weight": (_repeated(heads, 3, len(weight)), width),
        "attn.Wo.weight": (width, heads),
        "mlp.Wi.weight": (_repeated(mlp, 2, len(weight)), width),
        "mlp.Wo.weight": (width, mlp),
        "head.dense.weight": (width, width),
    }[part]
    return weight[rows][:, columns]


def _repeated(indices: Tensor, times: int, rows: int) -> Tensor:
    """The same indices within each of several equal parts of `rows` rows."""
    return torch.cat([indices + part * (rows // times) for part in range(times)])
