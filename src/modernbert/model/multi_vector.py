"""One vector for each token, as late interaction (ColBERT, arXiv 2004.12832) compares them."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder

DenseActivation = Literal[
    "Identity",
    "CELU",
    "ELU",
    "GELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]
"""Classes of torch.nn that take one number at a time and no arguments."""


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """The shape of one projection.

    Attributes:
        in_features: Numbers of a vector before and after.
        out_features: As `in_features`.
        bias: Whether it has one.
        activation: What the sums go through.
        residual: Whether the vector before is added, projected itself where the widths differ.
    """

    in_features: int
    out_features: int
    bias: bool = False
    activation: DenseActivation = "Identity"
    residual: bool = False

    def __post_init__(self) -> None:
        if self.activation not in get_args(DenseActivation):
            expected = ", ".join(get_args(DenseActivation))
            raise ConfigError(f"activation: got {self.activation!r}, expected one of {expected}")
        for name in ("in_features", "out_features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected 1 or more")


class Projection(nn.Module):
    """A linear layer over each token's vector, as a Dense of sentence-transformers."""

    def __init__(self, settings: ProjectionSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.in_features, settings.out_features
        self.linear = nn.Linear(*widths, bias=settings.bias)
        self.activation: nn.Module = getattr(nn, settings.activation)()
        self.residual: nn.Module | None = None
        if settings.residual:
            same = widths[0] == widths[1]
            self.residual = nn.Identity() if same else nn.Linear(*widths, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Project vectors (rows, in_features) to (rows, out_features)."""
        projected: Tensor = self.activation(self.linear(vectors))
        return projected if self.residual is None else projected + self.residual(vectors)


class MultiVectorModel(nn.Module):
    """An encoder and the projections behind it.

    >>> from modernbert.model.config import EncoderConfig
    >>> from modernbert.model.initialize import initialize
    >>> encoder = initialize(Encoder(EncoderConfig.preset("tiny", vocab_size=512)), seed=0)
    >>> model = MultiVectorModel(encoder, [projection(256, 32, seed=0)])
    >>> model(PackedBatch.from_sequences([[5, 6, 7], [8, 9]])).shape
    torch.Size([5, 32])

    Args:
        normalize: Whether the vectors have length 1.

    Raises:
        ConfigError: Projections that do not fit each other or the encoder.
    """

    def __init__(
        self, encoder: Encoder, projections: list[Projection], *, normalize: bool = True
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        for each in projections:
            if each.settings.in_features != width:
                raise ConfigError(
                    f"projection: takes {each.settings.in_features} numbers of a vector that has "
                    f"{width}"
                )
            width = each.settings.out_features
        self.encoder, self.dim, self.normalize = encoder, width, normalize
        self.projections = nn.ModuleList(projections)

    @classmethod
    def untrained(cls, encoder: Encoder, dim: int, *, seed: int = 0) -> "MultiVectorModel":
        """Put one new projection behind an encoder; equal seeds give equal weights."""
        return cls(encoder, [projection(encoder.config.hidden_size, dim, seed=seed)])

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """Compute the vector of every token, (total_tokens, dim) float32."""
        return self.project(self.encoder(batch, dropout=dropout))

    def project(self, hidden: Tensor) -> Tensor:
        """Return the vectors of tokens from their hidden states, (total_tokens, hidden_size)."""
        vectors = hidden
        for layer in self.projections:
            vectors = layer(vectors)
        vectors = vectors.float()
        return functional.normalize(vectors, dim=-1) if self.normalize else vectors


def projection(in_features: int, out_features: int, *, seed: int) -> Projection:
    """Return a new projection without a bias; equal seeds give equal weights."""
    made = Projection(ProjectionSettings(in_features=in_features, out_features=out_features))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.linear.weight.normal_(std=in_features**-0.5, generator=generator)
    return made
