"""Several processes that train one model: `Group`, and how the processes find each other.

They are started by torchrun, or by anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
for each. A single process needs none of this: its group, `ALONE`, does nothing at no cost.

All processes of a group call every function of it, in the same order. Numbers on the host travel
between CPUs, so that no accelerator has to be waited for.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from modernbert.devices import best_device
from modernbert.errors import ModernBertError, ProcessError, SettingsError
from modernbert.training.training_settings import DEFAULT_TIMEOUT_SECONDS

_BUCKET_BYTES = 1 << 25
_GRACE_SECONDS = 2.0  # for the others to come, after one is gone


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: The number of this process, from 0. Process 0 owns the run's folder.
        size: The number of processes.
        device: The device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _pulse: "_Pulse | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone reads and writes the run's folder."""
        return self.rank == 0

    def gather(self, row: Sequence[float]) -> list[list[float]]:
        """Return the rows of all processes, all of one length, in the order of the ranks.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        if self.size == 1:
            return [list(row)]
        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        with self.together():
            dist.all_gather(rows, mine)
        return [each.tolist() for each in rows]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, on any device, by their sums over all processes.

        They are sent in a few large pieces; each is prepared while the previous one is on its way.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        if self.size == 1:
            return
        with self.together():
            sent: tuple[list[Tensor], Tensor, Any] | None = None
            for bucket in _buckets(tensors):
                flat = _flat(bucket)
                work = dist.all_reduce(flat, async_op=True)
                _receive(sent)
                sent = bucket, flat, work
            _receive(sent)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace a tensor by that of process 0.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        if self.size == 1:
            return
        plain = tensor.contiguous()
        with self.together():
            dist.broadcast(plain, src=0)
        if plain is not tensor:
            tensor.copy_(plain)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, one process after the other, with gradients.

        Each process may have a different number of rows. In the backward pass a process receives
        the sum of all processes' gradients for its rows, so all must call backward as well.

        Args:
            rows: (num_rows, width), of the same width and dtype in all processes.

        Returns:
            (total_rows, width), equal in all processes.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _GatherRows.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def first(self, action: Callable[[], Any]) -> Any:
        """Do something in process 0 only; return its result, passed through JSON, in all processes.

        Raises:
            ModernBertError: Whatever the action raises in process 0.
            ProcessError: The action failed in process 0, or a process is gone.
        """
        if self.size == 1:
            return action()
        answer: dict[str, Any] = {}
        failure: ModernBertError | None = None
        if self.is_first:
            try:
                answer = {"result": action()}
            except ModernBertError as error:
                failure, answer = error, {"error": str(error)}
        answer = self._share(answer)
        if failure is not None:
            raise failure
        if "error" in answer:
            raise ProcessError(f"process 0 cannot continue: {answer['error']}")
        return answer["result"]

    def agree(self, name: str, value: str) -> None:
        """Check that all processes have the same value.

        Raises:
            ProcessError: A process has another value than process 0.
        """
        if self.size == 1:
            return
        first = self.first(lambda: value)
        differ = [rank for rank, (same,) in enumerate(self.gather([first == value])) if not same]
        if differ:
            raise ProcessError(
                f"{name}: differs between process {differ[0]} and process 0; give all processes "
                "the same recipe, tokenizer and shards"
            )

    def part(self, count: int) -> range:
        """Return which of `count` things are this process's: every `size`-th.

        >>> list(Group(rank=1, size=3).part(5))
        [1, 4]
        """
        return range(self.rank, count, self.size)

    def _share(self, value: Any) -> Any:
        """Return what process 0 has, passed through JSON."""
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        self.broadcast(length)
        if not self.is_first:
            content = torch.empty(int(length), dtype=torch.uint8)
        self.broadcast(content)
        return json.loads(content.numpy().tobytes())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Surround something that all processes do at once, and name those that are missing.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        if self._pulse is not None:
            self._pulse.beat()
        with self.watched():
            yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Surround communication that does not go through the group, such as FSDP2's.

        Raises:
            ProcessError: Another process is gone, or did not respond in time.
        """
        try:
            yield
        except RuntimeError as error:
            if self._pulse is None or not _is_of_connection(error):
                raise
            raise ProcessError(self._pulse.explain(error)) from error


class _GatherRows(torch.autograd.Function):
    """`Group.gather_rows` with its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        sizes = [int(size) for (size,) in group.gather([len(rows)])]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        with group.together():
            dist.all_gather(parts, padded)
        ctx.group, ctx.sizes = group, sizes
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        ctx.group.sum([gradient])
        return gradient.split(ctx.sizes)[ctx.group.rank], None


ALONE = Group()


@contextmanager
def joined(timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Iterator[Group]:
    """Join the group of this process, and leave it at the end; `ALONE` if RANK is not set.

    If an error ends the block, the others are told, and name it when they miss this process.

    Args:
        timeout_seconds: The time after which a process gives up waiting for another.

    Raises:
        SettingsError: The environment lacks a variable.
        ProcessError: Not all processes connected in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(device=best_device())
        return
    group = _join(size, timeout_seconds)
    assert group._pulse is not None
    try:
        yield group
    except BaseException as error:
        if not isinstance(error, ProcessError):
            group._pulse.leave_word(error)
        raise
    dist.destroy_process_group()


def _join(size: int, timeout_seconds: float) -> Group:
    if missing := [
        name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]:
        raise SettingsError(
            f"WORLD_SIZE is {size}, but {missing[0]} is not set; start the processes with torchrun"
        )
    device, timeout = _device(), timedelta(seconds=timeout_seconds)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        # After a restart torchrun's store still knows what the dead processes have written.
        store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        pulse = _Pulse(store=PrefixStore("pulse", store), rank=rank, size=size)
        pulse.introduce()
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ProcessError(
            f"the {size} processes did not all connect within {timeout_seconds:g} s: {reason}"
        ) from None
    return Group(rank=rank, size=size, device=device, _pulse=pulse)


def _device() -> torch.device:
    """That of one of several processes; they do not share an Apple GPU."""
    if best_device().type != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@dataclass(kw_only=True)
class _Pulse:
    """The progress of each process, in the store through which they found each other.

    Attributes:
        beats: How many things all processes did together, as counted by this one.
        beat_at: When this process reached the last of them.
    """

    store: Store
    rank: int
    size: int
    beats: int = 0
    beat_at: float = 0.0

    def introduce(self) -> None:
        """Publish this process's id and host, so that a message can name them."""
        self.store.set(f"id/{self.rank}", str(os.getpid()))
        self.store.set(f"host/{self.rank}", socket.gethostname())

    def beat(self) -> None:
        """Record that this process has reached the next thing that all do together."""
        self.beats, self.beat_at = self.beats + 1, time.monotonic()
        try:
            self.store.set(f"beats/{self.rank}", str(self.beats))
        except RuntimeError:
            raise ProcessError(
                "the connection to process 0, or to torchrun, is lost; run the same command again"
            ) from None

    def leave_word(self, error: BaseException) -> None:
        """Tell the others why this process ends, and give them time to read it."""
        try:
            self.store.set(f"word/{self.rank}", str(error) or type(error).__name__)
            if self.rank == 0 and dist.get_backend() == "gloo":
                dist.destroy_process_group()  # so the others notice; with its end the store may go
                self._await(lambda: all(self._get(f"read/{r}") for r in range(1, self.size)))
        except RuntimeError:
            return  # nobody is left to read it

    def explain(self, error: RuntimeError) -> str:
        """Say what happened to which process, after something that all do together failed."""
        try:
            # Those who are only slower shall come, so that none of them is named.
            self._await(lambda: len(self._behind()) <= 1 or bool(self._words()))
            words = self._words()
            absent = [self._name(rank) for rank in self._gone() or self._behind()]
            self.store.set(f"read/{self.rank}", "yes")
            if words:
                return "; ".join(words)
        except RuntimeError:
            absent = ["process 0, where they found each other,"]
        who = ", ".join(absent) or "one of the processes"
        timed_out = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        seconds = time.monotonic() - self.beat_at
        fate = f"did not come within {seconds:.0f} s" if timed_out else "is gone"
        return f"{who} {fate}; run the same command again and it goes on from the last checkpoint"

    def _await(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, but not for long."""
        end = time.monotonic() + _GRACE_SECONDS
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)

    def _behind(self) -> list[int]:
        return [
            rank for rank in range(self.size) if int(self._get(f"beats/{rank}") or "0") < self.beats
        ]

    def _gone(self) -> list[int]:
        """Return which processes of this host have ended."""
        host = socket.gethostname()
        here = [rank for rank in range(self.size) if self._get(f"host/{rank}") == host]
        return [rank for rank in here if _has_ended(int(self._get(f"id/{rank}")))]

    def _words(self) -> list[str]:
        words = {rank: self._get(f"word/{rank}") for rank in range(self.size)}
        return [f"{self._name(rank)} cannot go on: {word}" for rank, word in words.items() if word]

    def _name(self, rank: int) -> str:
        who, host = self._get(f"id/{rank}"), self._get(f"host/{rank}")
        return f"process {rank} (id {who} on {host})" if host else f"process {rank} (never seen)"

    def _get(self, key: str) -> str:
        return self.store.get(key).decode() if self.store.check([key]) else ""


def _has_ended(process_id: int) -> bool:
    """Return whether a process of this host has ended, even if its parent has not noticed."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return Path("/proc/self").exists()
    return state == "Z"


def _is_of_connection(error: RuntimeError) -> bool:
    """Return whether an error is about a connection; gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Divide tensors of one device and dtype into pieces that are worth sending."""
    alike: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for same in alike.values():
        bucket: list[Tensor] = []
        num_bytes = 0
        for tensor in same:
            bucket.append(tensor)
            num_bytes += tensor.nbytes
            if num_bytes >= _BUCKET_BYTES:
                yield bucket
                bucket, num_bytes = [], 0
        if bucket:
            yield bucket


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return one row of all values, (num_values,); a single tensor is not copied."""
    if len(tensors) == 1 and tensors[0].is_contiguous():
        return tensors[0].view(-1)
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _receive(sent: tuple[list[Tensor], Tensor, Any] | None) -> None:
    """Wait for a row of sums and put its values into the tensors from which it was made."""
    if sent is None:
        return
    tensors, flat, work = sent
    work.wait()
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, values in zip(tensors, flat.split(sizes), strict=True):
        if values.data_ptr() != tensor.data_ptr():
            tensor.copy_(values.view(tensor.shape))
