"""The config of an encoder, checked before anything is allocated, and the arithmetic it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from modernbert.errors import ConfigError
from modernbert.model.config_file import encoder_numbers, find_model, naming, read_config_file
from modernbert.model.rope_scaling import RopeScaling

LayerKind = Literal["global", "local"]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "relu2"]
HeadActivation = Activation | Literal["linear", "tanh"]

# Above these a config is a mistake or an attack: the weights would be terabytes.
_MAX_VOCAB_SIZE = 1 << 24
_MAX_WIDTH = 1 << 16
_MAX_LAYERS = 1024
_MAX_SEQLEN = 1 << 24


def layer_kinds(num_layers: int, *, global_every: int = 3) -> tuple[LayerKind, ...]:
    """Give layers 0, n, 2n, ... global attention and the others local (P section 2.1.2).

    >>> layer_kinds(5, global_every=3)
    ('global', 'local', 'local', 'global', 'local')
    """
    return tuple("global" if i % global_every == 0 else "local" for i in range(num_layers))


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The size and shape of an encoder; the defaults are ModernBERT-base (P table 4).

    Attributes:
        vocab_size: The number of tokens in the vocabulary, a multiple of 64 for fast products.
        hidden_size: The width of the residual stream.
        intermediate_size: The width of the gated MLP; its first matrix has twice as many rows.
        num_heads: The number of attention heads, each hidden_size / num_heads wide.
        layer_kinds: One entry per layer; the only place that says which layers are global or local.
        window: How far a token of a local layer sees on either side; 64 makes 129 tokens with
            itself (P section 2.1.2: a window of 128).
        global_theta: The base of the rotary angles in global layers. It is 10,000 in training at
            1,024 tokens, and context extension raises it (P section 2.2).
        local_theta: The same for local layers, which stays at 10,000.
        norm_eps: Added to the variance in every LayerNorm.
        max_seqlen: The longest sequence that the model is made for, in tokens.
        unk_token_id: The id of the tokenizer's token for unknown text.
        cls_token_id: The id of the first token of a sequence.
        sep_token_id: The id of the last token of a sequence.
        pad_token_id: The id of padding.
        mask_token_id: The id of the mask.
        activation: The activation of the gated MLPs.
        head_activation: The activation of the block before a head's last layer.
        attention_bias: Whether attention has biases. The paper's model has none (P section 2.1.1);
            some published ones do. The same holds for `mlp_bias`, `norm_bias` and `head_bias`.
        global_scaling: How the rotary angles of global layers are stretched, if at all.
        local_scaling: The same for local layers.
        tied_decoder: Whether the decoder of the masked language model is the token embedding.

    Raises:
        ConfigError: The numbers contradict each other, are absurd, or are not supported.
    """

    vocab_size: int = 50_368
    hidden_size: int = 768
    intermediate_size: int = 1_152
    num_heads: int = 12
    layer_kinds: tuple[LayerKind, ...] = layer_kinds(22)
    window: int = 64
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_seqlen: int = 8_192
    unk_token_id: int = 50_280
    cls_token_id: int = 50_281
    sep_token_id: int = 50_282
    pad_token_id: int = 50_283
    mask_token_id: int = 50_284
    activation: Activation = "gelu"
    head_activation: HeadActivation = "gelu"
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    head_bias: bool = False
    global_scaling: RopeScaling | None = None
    local_scaling: RopeScaling | None = None
    tied_decoder: bool = True

    def __post_init__(self) -> None:
        limits = {
            "vocab_size": _MAX_VOCAB_SIZE,
            "hidden_size": _MAX_WIDTH,
            "intermediate_size": _MAX_WIDTH,
            "num_heads": _MAX_WIDTH,
            "max_seqlen": _MAX_SEQLEN,
            "window": _MAX_SEQLEN,
        }
        for name, limit in limits.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected 1 to {limit}")
        if not 1 <= self.num_layers <= _MAX_LAYERS:
            raise ConfigError(f"got {self.num_layers} layers, expected 1 to {_MAX_LAYERS}")
        if unknown := set(self.layer_kinds) - {"global", "local"}:
            raise ConfigError(f"layer_kinds: got {unknown.pop()!r}, expected 'global' or 'local'")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        if self.head_size % 2:
            raise ConfigError(
                f"hidden_size {self.hidden_size} / num_heads {self.num_heads} = {self.head_size}: "
                "rotary positions need an even head size"
            )
        for name in ("global_theta", "local_theta"):
            if not 1 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected above 1")
        if not 0 < self.norm_eps < 1:
            raise ConfigError(f"norm_eps: got {self.norm_eps}, expected above 0 and below 1")
        for name in _TOKEN_ID_FIELDS:
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(
                    f"{name}: got {getattr(self, name)}, expected an id of the vocabulary, "
                    f"0 to {self.vocab_size - 1}"
                )

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self.layer_kinds)

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_heads

    def theta(self, kind: LayerKind) -> float:
        """Return the rotary base of layers of a kind."""
        return self.global_theta if kind == "global" else self.local_theta

    def scaling(self, kind: LayerKind) -> RopeScaling | None:
        """Return how the rotary angles of layers of a kind are stretched."""
        return self.global_scaling if kind == "global" else self.local_scaling

    def num_parameters(self, *, head: bool) -> int:
        """Return the exact number of parameters.

        >>> EncoderConfig().num_parameters(head=False), EncoderConfig().num_parameters(head=True)
        (149014272, 149655232)

        Args:
            head: Whether to include the head of the masked language model.
        """
        width, glu = self.hidden_size, self.intermediate_size
        norm = width * (1 + self.norm_bias)
        layer = 4 * width * width + 3 * width * glu + 2 * norm
        layer += 4 * width * self.attention_bias + (2 * glu + width) * self.mlp_bias
        # The embedding, its norm and the final norm; layer 0 has no attention norm.
        encoder = self.vocab_size * width + norm + self.num_layers * layer
        own_decoder = 0 if self.tied_decoder else self.vocab_size * width
        own_head = width * width + width * self.head_bias + norm + self.vocab_size + own_decoder
        return encoder + (own_head if head else 0)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return a published size, or `tiny`, with some values changed.

        If `vocab_size` is too small for the ids of the special tokens, and these are not given,
        they become the first five ids; your tokenizer knows the real ones.

        >>> EncoderConfig.preset("large").num_parameters(head=True)
        395881664

        Args:
            name: The name of the size.
            **changes: The values to change.

        Raises:
            ConfigError: There is no such size, or the values do not fit together.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
        values = {**PRESETS[name], **changes}
        known = {field.name: field.default for field in fields(cls)}
        if unknown := values.keys() - known.keys():
            raise ConfigError(
                f"preset {name!r}: {sorted(unknown)[0]!r} is not a number of the config"
            )
        vocab_size = values.get("vocab_size", known["vocab_size"])
        for index, field in enumerate(_TOKEN_ID_FIELDS):
            if field not in values and known[field] >= vocab_size:
                values[field] = index
        return cls(**values)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> Self:
        """Read the config of a model folder, or of a model on the hub.

        Args:
            folder_or_hub_id: A local folder or a hub id.

        Raises:
            ModelFolderError: There is no such folder, or it has no readable config.json.
            ConfigError: The config is not ModernBERT's, or it contradicts itself.
        """
        folder = find_model(folder_or_hub_id, weights=False)
        with naming(folder):
            return cls(**encoder_numbers(read_config_file(folder)))


_TOKEN_ID_FIELDS = (
    "unk_token_id",
    "cls_token_id",
    "sep_token_id",
    "pad_token_id",
    "mask_token_id",
)


# What only published models of other layouts than the paper's change.
LAYOUT_FIELDS = frozenset(
    {
        *("activation", "head_activation", "tied_decoder"),
        *("attention_bias", "mlp_bias", "norm_bias", "head_bias"),
        *("global_scaling", "local_scaling"),
    }
)


def _size(layers: int, hidden: int, glu: int, heads: int) -> Mapping[str, Any]:
    return {
        "layer_kinds": layer_kinds(layers),
        "hidden_size": hidden,
        "intermediate_size": glu,
        "num_heads": heads,
    }


# Base and large: P table 4. The others are Ettin's (arXiv 2507.11412), and one for demonstrations.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": _size(6, 256, 384, 4),
    "17m": _size(7, 256, 384, 4),
    "32m": _size(10, 384, 576, 6),
    "68m": _size(19, 512, 768, 8),
    "base": _size(22, 768, 1152, 12),
    "150m": _size(22, 768, 1152, 12),
    "large": _size(28, 1024, 2624, 16),
    "400m": _size(28, 1024, 2624, 16),
    "1b": _size(28, 1792, 3840, 28),
}


def flops_per_token(config: EncoderConfig, length: int, *, masked_share: float = 0.0) -> float:
    """Count the operations of a forward pass for one token of a sequence.

    A multiplication and an addition are two operations. As usual, only matrix products are counted:
    those with the weights, and in attention those with the keys that a token really sees. A
    training step costs three times as much.

    >>> config = EncoderConfig.preset("base")
    >>> round(flops_per_token(config, 1024) / 1e6)
    251

    Args:
        config: The config of the model.
        length: The length of the sequence, in tokens.
        masked_share: The fraction of the tokens that go through the head and the vocabulary.
    """
    width = config.hidden_size
    weights = config.num_layers * (4 * width * width + 3 * width * config.intermediate_size)
    head = masked_share * width * (width + config.vocab_size)
    num_global = config.layer_kinds.count("global")
    seen = float(num_global * length)
    seen += (config.num_layers - num_global) * _mean_window(length, config.window)
    return 2 * (weights + head + 2 * width * seen)


def _mean_window(length: int, window: int) -> float:
    """Return how many tokens a token sees in a window, on average over a sequence.

    >>> _mean_window(3, 1), _mean_window(3, 64)
    (2.3333333333333335, 3.0)
    """
    reach = min(window, length - 1)
    return (length * (2 * reach + 1) - reach * (reach + 1)) / length
