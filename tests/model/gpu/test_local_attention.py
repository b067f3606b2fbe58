"""Attention within a window by its kernels, against blocks in float32; borders above all."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model.attention import attend
from modernbert.model.layout import Layout

pytestmark = pytest.mark.gpu


def both(
    lengths: list[int],
    window: int,
    heads: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_causal: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Result and gradients by the kernels, and in float32 by blocks."""
    from modernbert.model.gpu.local_attention import local_attention

    batch = PackedBatch.from_sequences([[5] * length for length in lengths], device=device)
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (4, batch.total_tokens, *heads)
    *inputs, direction = torch.randn(shape, generator=generator).to(device, dtype).unbind()
    joint = torch.stack(inputs, dim=1)  # (total_tokens, 3, num_heads, head_size)
    layout = Layout(batch, window, attention="blocks", is_causal=is_causal)
    ahead = 0 if is_causal else window
    found: list[list[Tensor]] = []
    for values in (joint, joint.float()):
        values.requires_grad_()
        query, key, value = values.unbind(1)
        if values is joint:
            output = local_attention(query, key, value, *layout.borders_each, window, ahead)[0]
        else:
            output = attend(query, key, value, layout, window=window)
        (gradient,) = torch.autograd.grad(output, values, direction.to(values.dtype))
        found.append([output.detach().float(), gradient.float()])
    return found[0], found[1]


def check(
    lengths: list[int],
    window: int,
    heads: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_causal: bool = False,
) -> None:
    got, expected = both(lengths, window, heads, dtype, device, is_causal=is_causal)
    for one, other in zip(got, expected, strict=True):
        within = (0.03 if dtype is torch.bfloat16 else 0.006) * float(other.abs().max())
        assert one.isfinite().all() and float((one - other).abs().max()) <= within


@pytest.mark.parametrize("heads", [(2, 64), (3, 32), (1, 128), (2, 16)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_to_blocks(heads: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    check([70, 1, 64, 3, 129], 64, heads, dtype, device)


# The interpreter takes a second for what a GPU does in a millisecond.
NUM_EXAMPLES, LONGEST, MOST = (30, 150, 6) if torch.cuda.is_available() else (8, 90, 3)


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(
    lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=MOST),
    window=st.sampled_from([1, 7, 32, 64, 100]),
    is_causal=st.booleans(),
)
@example(lengths=[90, 1, 90], window=32, is_causal=True)
def test_any_borders(
    lengths: list[int], window: int, is_causal: bool, device: torch.device
) -> None:
    check(lengths, window, (2, 32), torch.float16, device, is_causal=is_causal)


def test_the_same_each_time(device: torch.device) -> None:
    first, second = (both([150, 40], 64, (2, 64), torch.float16, device)[0] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
