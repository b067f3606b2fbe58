"""Computing batches on a device; a GPU is not waited for until its results are wanted."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from modernbert.batch import PackedBatch
from modernbert.device_copies import Underway, underway

R = TypeVar("R")


def launch(
    compute: Callable[[PackedBatch], Sequence[R]],
    sequences: Iterable[Sequence[int]],
    device: torch.device,
) -> Underway[Sequence[R]]:
    """Pack sequences, copy them to a device and begin to compute.

    compute: a batch to one result a sequence; brings them to the CPU by `to_host`.

    Raises:
        InputError: no sequence, or an empty one.
    """
    batch = PackedBatch.from_sequences(sequences)
    on_gpu = device.type == "cuda"
    if on_gpu:  # from other memory a copy would wait for all that was launched before
        batch = batch.pin_memory()
    with torch.inference_mode():
        results = compute(batch.to(device, non_blocking=on_gpu))
    return underway(results, device)
