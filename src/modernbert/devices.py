"""Which device to use, and what it needs: compiled layers, overlapping copies, few shapes."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import SettingsError

DEVICE_VARIABLE = "MODERNBERT_DEVICE"


def best_device() -> torch.device:
    """Return the device to compute on: an NVIDIA GPU if there is one, else Apple's, else the CPU.

    The environment variable MODERNBERT_DEVICE names another one.

    Raises:
        SettingsError: The variable names no device, or one that is not here.
    """
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    asked = os.environ.get(DEVICE_VARIABLE, "").strip().lower()
    if not asked:
        return torch.device(next((name for name, is_there in there.items() if is_there()), "cpu"))
    if asked not in ("cpu", *there):
        raise SettingsError(f"{DEVICE_VARIABLE}: got {asked!r}, expected cuda, mps or cpu")
    if asked != "cpu" and not there[asked]():
        raise SettingsError(f"{DEVICE_VARIABLE}: got {asked!r}, but there is none here")
    return torch.device(asked)


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no wider numbers."""
    return torch.float32 if device.type == "mps" else torch.float64


_AMPERE, _ADA = (8, 0), (8, 9)


def is_since_ampere(device: torch.device) -> bool:
    """Return whether a device is an NVIDIA GPU of Ampere's generation or a later one."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def has_triton(device: torch.device) -> bool:
    """Return whether Triton is installed and runs on a device: an Ampere GPU or newer."""
    return is_since_ampere(device) and importlib.util.find_spec("triton") is not None


def has_float8(device: torch.device) -> bool:
    """Return whether a device has units for products in float8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _ADA


# Graphs of one function, for all layers of a process together: kinds of layers, with gradients and
# without, in one shape and in several, of each model. The compiler's own limit of 8 is soon
# passed, and from then on it leaves layers uncompiled.
_MOST_GRAPHS = 128


def compile_layer(
    layer: nn.Module,
    backend: str | Callable[..., Any] = "inductor",
    *,
    dynamic: bool | None = None,
) -> None:
    """Compile the forward of one of many layers; those of a kind share their code.

    Args:
        layer: The layer whose `forward` is compiled in place.
        backend: Those of `torch.compile`.
        dynamic: As `backend`.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_GRAPHS)
    layer.forward = torch.compile(layer.forward, backend=backend, dynamic=dynamic)


T = TypeVar("T")


def copied_ahead(
    items: Iterable[T], copy: Callable[[T], T], device: torch.device | str
) -> Iterator[T]:
    """Yield each item as `copy` returns it, one ahead of its use and on a stream of its own.

    On other devices than CUDA every item is copied when it is asked for.

    >>> list(copied_ahead([1, 2, 3], lambda number: 10 * number, "cpu"))
    [10, 20, 30]

    Args:
        items: What to copy, one after another.
        copy: Gives an item's copy on the device without waiting for it, from pinned memory.
        device: Where `copy` puts the items; nothing is done ahead on a CPU.
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
    """Return the item, ready for what is queued on the device from now on."""
    torch.cuda.current_stream(device).wait_event(event)
    return item


@dataclass(frozen=True)
class Underway(Generic[T]):
    """A result that a GPU may still be computing, as `to_host` returns it."""

    result: T
    event: "torch.cuda.Event | None" = None

    def wait(self) -> T:
        """Wait for the result and return it."""
        if self.event is not None:
            self.event.synchronize()
        return self.result


def underway(result: T, device: torch.device) -> Underway[T]:
    """Return a result that is ready when everything launched on the device so far is done."""
    if device.type != "cuda":
        return Underway(result)
    return Underway(result, torch.cuda.current_stream(device).record_event())


def to_host(values: Tensor) -> Tensor:
    """Copy values to the CPU; those of a GPU are ready after `wait`."""
    if values.device.type != "cuda":
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


# On a CPU torch prepares its products anew for each number of rows and keeps every preparation.
# Rounded up, the numbers are few. Measured with the tiny size and about 614 masked rows a step: 44
# MB more after 150 further steps in place of 550 MB, and as fast.
_MULTIPLE = 64


def missing_rows(num_rows: int) -> int:
    """Return how many rows there should be besides.

    >>> missing_rows(100), missing_rows(128)
    (28, 0)
    """
    return -num_rows % _MULTIPLE


def filled(batch: PackedBatch) -> PackedBatch:
    """Return the batch; on a CPU it is filled up with sequences whose results are not used."""
    missing = missing_rows(batch.total_tokens)
    if not missing or batch.token_ids.device.type != "cpu":
        return batch
    return batch.filled_up(
        batch.total_tokens + missing,
        max_seqlen=max(batch.max_seqlen, missing),
        token_id=int(batch.token_ids[0]),
    )
