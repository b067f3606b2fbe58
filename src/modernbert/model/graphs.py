"""CUDA graphs: batches of few short texts take longer to launch than to compute.

A graph repeats recorded launches on the same memory, so a batch is copied into a fixed one of the
next larger size. Sizes at which the graph was not faster at start-up have none.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from modernbert.batch import PackedBatch

SIZES = (32, 64, 128, 256, 512, 1024)
"""Numbers of tokens for which graphs are recorded."""

_TOKENS_PER_SEQUENCE = 8  # a fixed batch has one sequence, perhaps empty, for so many tokens
_WARM_UPS = 3
_ROUNDS, _CALLS = 5, 10
_GAIN = 0.9  # of the plain time; a graph has to be below

Compute = Callable[[PackedBatch], Tensor]
Replay = Callable[[], object]
Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Replay]]
Clock = Callable[[Callable[[], object]], float]


class Graph:
    """The recorded launches for one number of tokens.

    Args:
        compute: Computes (total_tokens, hidden_size) of a batch without waiting for the device.
        num_tokens: The number of tokens of the fixed batch.
        device: The device.
        record: Runs a function once; returns its output, and what computes that output again.
    """

    def __init__(
        self, compute: Compute, num_tokens: int, device: torch.device, record: Record
    ) -> None:
        self.num_tokens, self.num_sequences = num_tokens, num_tokens // _TOKENS_PER_SEQUENCE
        self._token_ids = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        self._borders = torch.full(
            (self.num_sequences + 1,), num_tokens, dtype=torch.int32, device=device
        )
        self._borders[0] = 0

        def run() -> Tensor:  # the batch is made anew, as it remembers what follows from borders
            return compute(
                PackedBatch(
                    token_ids=self._token_ids, cu_seqlens=self._borders, max_seqlen=num_tokens
                )
            )

        self._hidden, self._replay = record(run)

    def takes(self, batch: PackedBatch) -> bool:
        """Return whether a batch fits, with what fills it up as one more sequence."""
        fits = batch.total_tokens <= self.num_tokens
        return fits and batch.num_sequences < self.num_sequences

    def __call__(self, batch: PackedBatch) -> Tensor:
        """Compute (total_tokens, hidden_size) of a batch that fits."""
        num_borders = batch.num_sequences + 1
        self._token_ids[: batch.total_tokens].copy_(batch.token_ids)
        self._borders[:num_borders].copy_(batch.cu_seqlens)
        self._borders[num_borders:].fill_(self.num_tokens)
        self._replay()
        return self._hidden[: batch.total_tokens].clone()


class Graphs:
    """The graphs of one encoder, of those sizes at which they were faster.

    Args:
        compute: As of `Graph`.
        device: The device.
        record: As of `Graph`.
        clock: Seconds of some calls.
    """

    def __init__(
        self,
        compute: Compute,
        device: torch.device,
        *,
        record: "Record | None" = None,
        clock: "Clock | None" = None,
    ) -> None:
        self.seconds: dict[int, tuple[float, float]] = {}
        """For each size the seconds of a full batch without its graph, and with it."""
        self._graphs: list[Graph] = []
        for size in SIZES:
            graph = Graph(compute, size, device, record or _record)
            self.seconds[size] = _times(compute, graph, device, clock or _clock)
            plain, replayed = self.seconds[size]
            if replayed < _GAIN * plain:
                self._graphs.append(graph)

    def __call__(self, batch: PackedBatch) -> Tensor | None:
        """Compute a batch with the smallest graph that takes it; None if there is none."""
        fitting = next((graph for graph in self._graphs if graph.takes(batch)), None)
        return None if fitting is None else fitting(batch)


def _times(
    compute: Compute, graph: Graph, device: torch.device, clock: Clock
) -> tuple[float, float]:
    """The median seconds of a batch of one text, computed plainly and by the graph, in turn."""
    batch = PackedBatch.from_sequences([[0] * graph.num_tokens], device=device)
    rounds = [(clock(lambda: compute(batch)), clock(lambda: graph(batch))) for _ in range(_ROUNDS)]
    plain, replayed = zip(*rounds, strict=True)
    return median(plain), median(replayed)


def _clock(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(_CALLS):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / _CALLS


def _record(function: Callable[[], Tensor]) -> tuple[Tensor, Replay]:
    """Record on CUDA, after some calls on a stream of their own, as torch asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()
    return output, graph.replay
