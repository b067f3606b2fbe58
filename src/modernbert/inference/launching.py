"""Computing batches on a device; a GPU is not waited for until its results are wanted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from modernbert.batch import PackedBatch

R = TypeVar("R")


@dataclass(frozen=True)
class Launched(Generic[R]):
    """A batch that a GPU may still be computing."""

    results: Sequence[R]
    event: "torch.cuda.Event | None" = None

    def wait(self) -> Sequence[R]:
        """One result a sequence, ready to be read."""
        if self.event is not None:
            self.event.synchronize()
        return self.results


def launch(
    compute: Callable[[PackedBatch], Sequence[R]],
    sequences: Iterable[Sequence[int]],
    device: torch.device,
) -> Launched[R]:
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
    event = torch.cuda.current_stream(device).record_event() if on_gpu else None
    return Launched(results, event)


def to_host(values: Tensor) -> Tensor:
    """Values on the CPU; those of a GPU are there once the batch has been waited for."""
    if values.device.type != "cuda":
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
