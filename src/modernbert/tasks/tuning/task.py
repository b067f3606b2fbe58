"""`Tuning`: the `Task` of a `Trainer` for any job, and `Epochs`: the rows of each of its steps.

    rows -> epochs -> the rows of a step -> divided, packed -> the job's objective -> loss

The rows of a step depend only on the seed, the epoch and the place in it. A run can therefore
continue from any step, on any number of processes, and sees what an uninterrupted run sees. Nothing
is padded, so rows of different lengths can share a batch at no cost.

The rows of a step are distributed by their lengths, so that every process gets about the same
number of tokens, and each process packs its own. All processes compute the same number of packs,
because with sharded weights (FSDP2) they gather every layer together. A process that has fewer
packs computes one sequence again and ignores the result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modernbert.inference.batching import batch_tokens_for, packs
from modernbert.tasks.tuning.job import TuningJob
from modernbert.tasks.tuning.recipe import RunSettings
from modernbert.training.distributed import ALONE, Group
from modernbert.training.task import Progress, Step


class StepRows(NamedTuple):
    """The rows of one step, and the place after it: the rows seen since the run began."""

    rows: list[int]
    position: int


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """Rows of given lengths, epoch after epoch, divided into steps.

    Attributes:
        lengths: The number of tokens of each row.
        batch_size: The rows of a step; the last step of a source in an epoch has the rest.
        batch_tokens: The most tokens of a step, used instead; a step has at least one row.
        sources: The number of the source of each row, from 0; none for rows of one source. A step
            has rows of one source.
        weights: How often a row of each source is seen in an epoch. A fraction is a part of the
            rows, in each epoch the next ones.
    """

    lengths: Sequence[int]
    batch_size: int
    batch_tokens: int | None = None
    seed: int = 0
    sources: Sequence[int] = ()
    weights: Sequence[float] = (1.0,)

    def steps(self, position: int = 0) -> Iterator[StepRows]:
        """Yield the steps from a place on, without end.

        >>> epochs = Epochs(lengths=[1, 1, 1], batch_size=2)
        >>> steps = epochs.steps(position=3)
        >>> [len(next(steps).rows), len(next(steps).rows)]
        [2, 1]
        """
        size = sum(self._counts)
        epoch, done = divmod(position, size)
        while True:
            seen = 0
            for rows in self._steps_of(epoch):
                seen += len(rows)
                if seen > done:
                    yield StepRows(rows, epoch * size + seen)
            epoch, done = epoch + 1, 0

    def num_steps(self, num_epochs: int) -> int:
        """Return the number of steps of the first epochs together."""
        return sum(1 for epoch in range(num_epochs) for _ in self._steps_of(epoch))

    def num_tokens(self, num_epochs: int) -> int:
        """Return the number of tokens of the first epochs together."""
        if self._counts == [len(self.lengths)]:
            return num_epochs * sum(self.lengths)
        steps = (rows for epoch in range(num_epochs) for rows in self._steps_of(epoch))
        return sum(self.lengths[row] for rows in steps for row in rows)

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        """The rows of each source."""
        if not self.sources:
            return [np.arange(len(self.lengths))]
        sources = np.asarray(self.sources)
        return [np.flatnonzero(sources == source) for source in range(len(self.weights))]

    @cached_property
    def _counts(self) -> list[int]:
        """How many rows of each source an epoch has."""
        each = zip(self._rows, self.weights, strict=True)
        return [max(1, round(len(rows) * weight)) for rows, weight in each]

    def _steps_of(self, epoch: int) -> list[list[int]]:
        """Return the rows of each step of an epoch."""
        steps = [step for source in range(len(self._rows)) for step in self._divided(epoch, source)]
        if len(self._rows) > 1:
            self._generator(epoch, len(self._rows)).shuffle(steps)
        return steps

    def _divided(self, epoch: int, source: int) -> Iterator[list[int]]:
        """Divide the rows of one source in an epoch into steps."""
        rows: list[int] = []
        tokens = 0
        for row in self._chosen(epoch, source):
            if rows and self._is_full(len(rows), tokens + self.lengths[row]):
                yield rows
                rows, tokens = [], 0
            rows.append(row)
            tokens += self.lengths[row]
        yield rows

    def _chosen(self, epoch: int, source: int) -> list[int]:
        """Return the rows of one source in an epoch: the next of endless passes over them."""
        rows, count = self._rows[source], self._counts[source]
        first, last = epoch * count // len(rows), ((epoch + 1) * count - 1) // len(rows)
        passes = [
            rows[self._generator(number, source).permutation(len(rows))]
            for number in range(first, last + 1)
        ]
        begin = epoch * count - first * len(rows)
        return [int(row) for row in np.concatenate(passes)[begin : begin + count]]

    def _generator(self, number: int, source: int) -> np.random.Generator:
        key = [self.seed, number, source] if source else [self.seed, number]
        return np.random.Generator(np.random.PCG64DXSM(key))

    def _is_full(self, num_rows: int, tokens_with_next: int) -> bool:
        if self.batch_tokens is None:
            return num_rows == self.batch_size
        return tokens_with_next > self.batch_tokens


class Pack(NamedTuple):
    """Sequences that are computed together.

    Attributes:
        places: Their indices among all sequences.
        counts: Whether their results are used; see above.
    """

    places: list[int]
    counts: bool = True


def shared_packs(lengths: Sequence[int], batch_tokens: int, group: Group) -> list[Pack]:
    """Return this process's packs of at most so many tokens, but one sequence in any case.

    >>> shared_packs([2, 9, 4, 3], 8, Group(rank=1, size=2))
    [Pack(places=[2, 0], counts=True), Pack(places=[0], counts=False)]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    each = [_packs(order[rank :: group.size], lengths, batch_tokens) for rank in range(group.size)]
    own = [Pack(places) for places in each[group.rank]]
    missing = max(map(len, each)) - len(own)
    return own + [Pack(order[-1:], counts=False)] * missing


def _packs(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    chosen = packs([lengths[place] for place in order], batch_tokens)
    return [[order[index] for index in pack] for pack in chosen]


def computed_together(
    compute: Callable[[Pack], Sequence[Tensor]],
    lengths: Sequence[int],
    batch_tokens: int,
    group: Group,
) -> list[Tensor]:
    """Compute all sequences and return their results in order, in every process, with gradients.

    A contrastive loss compares all results of a step, so the step cannot be computed in parts
    whose losses are added, and its activations may not fit in memory. With several packs, each
    pack's activations are therefore dropped and computed again when the gradients of its results
    are due: cached contrastive gradients (GradCache, arXiv 2101.06983), here by torch's
    checkpoint. Only the results are kept, and the gradients are those of a single pack that holds
    the whole step, since `checkpoint` also restores the random numbers of the first computation.

    Args:
        compute: Returns the results of a pack's sequences, (num_rows, width) each, with any number
            of rows.
        lengths: The tokens of each sequence.
        batch_tokens: The most tokens to compute at once.
        group: The processes that share the work.

    Returns:
        The result of each sequence.
    """
    chosen = shared_packs(lengths, batch_tokens, group)
    places: list[int] = []
    found: list[Tensor] = []
    left_out: list[Tensor] = []
    for pack in chosen:
        if len(chosen) > 1 and torch.is_grad_enabled():
            results = checkpoint(compute, pack, use_reentrant=False)
        else:
            results = compute(pack)
        if pack.counts:
            places += pack.places
            found += results
        else:
            left_out += results
    if group.size > 1:
        places, found = _gathered(places, found, left_out, group)
    by_place = dict(zip(places, found, strict=True))
    return [by_place[place] for place in range(len(lengths))]


def _gathered(
    places: Sequence[int], found: Sequence[Tensor], left_out: Sequence[Tensor], group: Group
) -> tuple[list[int], list[Tensor]]:
    """Return the indices and results of all processes; unused results keep their graph."""
    sizes = [(place, len(result)) for place, result in zip(places, found, strict=True)]
    everyone = group.gather_rows(torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)).tolist()
    rows = torch.cat([*found, *(result[:0] for result in left_out)])
    for result in left_out:
        rows = rows + 0 * result.sum()
    gathered = group.gather_rows(rows)
    return [place for place, _ in everyone], list(gathered.split([size for _, size in everyone]))


def epochs_of(job: TuningJob, settings: RunSettings | None = None, seed: int = 0) -> Epochs:
    """Return the rows of a job, in steps as its recipe or other settings have them."""
    settings = settings or job.recipe.training
    return Epochs(
        lengths=job.objective.lengths,
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        seed=seed,
        **({} if job.mixture is None else vars(job.mixture)),
    )


class Tuning:
    """The task of learning the objective of a job from its rows, epoch after epoch.

    Args:
        job: The fine-tuning, with its data.
        settings: The size of steps, and how much of one is computed at once.
        seed: Decides the order of the rows.
        group: The processes that share every step.
    """

    def __init__(
        self, job: TuningJob, settings: RunSettings, seed: int = 0, group: Group = ALONE
    ) -> None:
        self.objective, self.group = job.objective, group
        self.micro_batch_tokens = batch_tokens_for(group.device, settings.micro_batch_tokens)
        self.epochs = epochs_of(job, settings, seed)
        self._num_steps = self.epochs.num_steps(settings.epochs)

    def steps(self, progress: Progress) -> Iterator[Step]:
        """Yield the steps from a place on, with this process's share of each."""
        for rows, position in self.epochs.steps(progress.position):
            num_tokens = sum(self.epochs.lengths[row] for row in rows)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + num_tokens,
                position=position,
            )
            micro_batches = self._micro_batches(rows)
            yield Step(
                micro_batches=micro_batches,
                progress=progress,
                num_targets=self._num_targets(rows, micro_batches),
                num_tokens=num_tokens,
                fill=1.0,  # nothing is padded
            )

    def loss(self, module: nn.Module, micro_batch: Pack, *, step: int) -> Tensor:
        """Return the sum of the losses of a micro-batch's targets; its places are rows."""
        done = min(1.0, step / self._num_steps)
        loss = self.objective.loss(module, micro_batch.places, self.group, done)
        return loss if micro_batch.counts else loss * 0

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Compute scores on the dev rows."""
        return self.objective.evaluate(module, "dev", self.group)

    def _micro_batches(self, rows: Sequence[int]) -> list[Pack]:
        if self.objective.whole_steps:
            return [Pack(list(rows))]
        lengths = [self.epochs.lengths[row] for row in rows]
        return [
            Pack([rows[place] for place in pack.places], pack.counts)
            for pack in shared_packs(lengths, self.micro_batch_tokens, self.group)
        ]

    def _num_targets(self, rows: Sequence[int], micro_batches: Sequence[Pack]) -> int:
        """Return how many targets of the step belong to this process."""
        own = [row for pack in micro_batches if pack.counts for row in pack.places]
        if self.objective.whole_steps:
            own = own_rows(rows, self.group)
        return sum(self.objective.num_targets(row) for row in own)


def own_rows(rows: Sequence[int], group: Group) -> list[int]:
    """Return the rows of a whole step whose losses belong to this process."""
    return [rows[place] for place in group.part(len(rows))]
