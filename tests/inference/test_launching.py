"""Batches on a device, and results that are read later."""

import pytest
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import launch

CPU = torch.device("cpu")


def first_ids(batch: PackedBatch) -> tuple[Tensor, ...]:
    assert torch.is_inference_mode_enabled()
    return to_host(batch.token_ids[batch.cu_seqlens[:-1]]).unbind()


def test_a_result_for_each_sequence() -> None:
    launched = launch(first_ids, [[5, 6], [7], [8, 9]], CPU)
    assert launched.event is None
    assert [int(each) for each in launched.wait()] == [5, 7, 8]


def test_no_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="no sequences"):
        launch(first_ids, [], CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_waited_for_in_the_end_alone() -> None:
    device = torch.device("cuda")
    busy = torch.randn(4096, 4096, device=device)

    def slow(batch: PackedBatch) -> tuple[Tensor, ...]:
        for _ in range(50):
            busy.copy_(busy @ busy).clamp_(-1, 1)
        firsts = batch.token_ids[batch.cu_seqlens[:-1].long()]
        return to_host(firsts + 0 * busy[0, 0].long()).unbind()

    launch(slow, [[1]], device).wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        launched = launch(slow, [[5, 6], [7], [8, 9]], device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert launched.event is not None and not launched.event.query()
    results = launched.wait()
    assert all(each.device == CPU and each.is_pinned() for each in results)
    assert [int(each) for each in results] == [5, 7, 8]
