"""First weights: drawn at random, as a table.

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
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)

STANDARD_DEVIATION = 0.02
CUTOFF = 2.0  # in standard deviations

M = TypeVar("M", Encoder, MaskedLanguageModel, SequenceClassifier, TokenClassifier, SpanClassifier)


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
