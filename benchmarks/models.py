"""The models that are measured: equal random weights for everyone."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from modernbert.files import new_folder
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds
from modernbert.model.encoder import Encoder

CACHE = Path(tempfile.gettempdir()) / "modernbert-benchmarks"
# Wide enough that every part matters, narrow enough that float32's rounding does not add up.
_GAIN = 0.7

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model folder that all peers read.

    description: what a result says about it.
    cache: where exported copies are kept.
    """

    folder: Path
    description: str
    cache: Path

    @property
    def config(self) -> EncoderConfig:
        """The numbers of the encoder."""
        return EncoderConfig.from_pretrained(self.folder)


def random_model(size: str, num_layers: int, cache: Path = CACHE) -> Model:
    """A size with so many layers, every third of them global, and random weights.

    The folder is made once; equal arguments give equal weights.
    """
    config = EncoderConfig.preset(size, layer_kinds=layer_kinds(num_layers))
    home = cache / f"{size}-{num_layers}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "model").exists():
        with new_folder(home / "model") as folder:
            draw_weights(Encoder(config)).save_pretrained(folder)
    num_global = config.layer_kinds.count("global")
    whole = len(PRESETS[size]["layer_kinds"])
    description = (
        f"{size} width, {num_layers} of {whole} layers ({num_global} global), random weights"
    )
    return Model(folder=home / "model", description=description, cache=home)


@torch.no_grad()
def draw_weights(module: M, *, seed: int = 0) -> M:
    """Weights that let every part matter, unlike a fresh model's, whose attention is flat."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        sigma = 0.1 if parameter.ndim == 1 else _GAIN * parameter.shape[1] ** -0.5
        parameter.normal_(0.0, sigma, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            parameter.add_(1)
    return module
