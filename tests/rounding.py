"""How far rounding may move a result: a bound from the length of its sums, not from one CPU.

CPUs, libraries and numbers of threads add up in different orders. Whatever the order, a sum of n
products is off by more than lambda sqrt(n) units in the last place with a chance that falls as
exp(-lambda^2 / 2): Higham and Mary 2019, "A new approach to probabilistic rounding error analysis".
References are computed in float64, whose own rounding is nothing beside that.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.model.config import EncoderConfig

LAMBDA = 3.0


def rounding(expected: Any, *, num_terms: int, dtype: torch.dtype = torch.float32) -> float:
    """The largest distance that rounding explains between `expected` and the same in `dtype`.

    Args:
        expected: an array, a tensor or a number; its largest entry gives the scale.
        num_terms: how many numbers are added up on the way to an entry, one sum after another.
        dtype: the format of the result that is judged.
    """
    largest = float(np.abs(_array(expected)).max(initial=0.0))
    return LAMBDA * float(np.sqrt(num_terms)) * torch.finfo(dtype).eps * largest


def assert_equal_but_for_rounding(
    found: Any, expected: Any, *, num_terms: int, dtype: torch.dtype = torch.float32
) -> None:
    """Assert that two arrays, tensors or numbers of one shape are as near as `rounding` says."""
    assert np.shape(_array(found)) == np.shape(_array(expected))
    bound = rounding(expected, num_terms=num_terms, dtype=dtype)
    np.testing.assert_allclose(_array(found), _array(expected), rtol=0, atol=bound)


def terms_of_encoder(config: EncoderConfig, longest: int) -> int:
    """The numbers that are added up on the longest way through an encoder: sums of its products.

    Args:
        config: the sizes of the encoder.
        longest: tokens of the longest sequence, over which attention sums.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    products = hidden + config.head_size + longest + hidden + hidden + inner
    norms = 2 * hidden
    return config.num_layers * (products + norms) + hidden


def _array(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(values, Tensor):
        values = values.detach().double().cpu()
    return np.asarray(values, dtype=np.float64)
