"""Copies to and from a GPU that overlap with its computing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def copied_ahead(
    items: Iterable[T], copy: Callable[[T], T], device: torch.device | str
) -> Iterator[T]:
    """Each item as `copy` returns it, one ahead of its use and on a stream of its own.

    copy: gives an item's copy on the device without waiting for it, from pinned memory.

    On other devices than CUDA every item is copied when it is asked for.

    >>> list(copied_ahead([1, 2, 3], lambda number: 10 * number, "cpu"))
    [10, 20, 30]
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from map(copy, items)
        return
    side = torch.cuda.Stream(device)
    ahead: tuple[T, torch.cuda.Event] | None = None
    for item in items:
        # What the item before last has left in memory may be overwritten now: its step is queued.
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            this = copy(item), side.record_event()
        if ahead is not None:
            yield _arrived(*ahead, device)
        ahead = this
    if ahead is not None:
        yield _arrived(*ahead, device)


def _arrived(item: T, event: "torch.cuda.Event", device: torch.device) -> T:
    """The item, for whatever is queued on the device from now on."""
    torch.cuda.current_stream(device).wait_event(event)
    return item


@dataclass(frozen=True)
class Underway(Generic[T]):
    """What a GPU may still be computing, as `to_host` made it."""

    result: T
    event: "torch.cuda.Event | None" = None

    def wait(self) -> T:
        """The result, ready to be read."""
        if self.event is not None:
            self.event.synchronize()
        return self.result


def underway(result: T, device: torch.device) -> Underway[T]:
    """A result that is there when all that was launched on the device so far is done."""
    if device.type != "cuda":
        return Underway(result)
    return Underway(result, torch.cuda.current_stream(device).record_event())


def to_host(values: Tensor) -> Tensor:
    """Values on the CPU; those of a GPU are there once they have been waited for."""
    if values.device.type != "cuda":
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
