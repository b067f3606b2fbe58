"""Sequences of a step or of an evaluation, shared out among the processes of a group.

The sequences are dealt out by their lengths, so that every process gets about as many tokens, and
each process packs its own. All processes compute equally many packs, because with weights in
shards (FSDP2) they gather every layer together: a process that has fewer computes one sequence
again, whose results count for nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modernbert.inference.batching import packs
from modernbert.training.distributed import Group


class Pack(NamedTuple):
    """Sequences that are computed together.

    places: Their places among all sequences.
    counts: Whether their results are wanted; see above.
    """

    places: list[int]
    counts: bool = True


def shared_packs(lengths: Sequence[int], batch_tokens: int, group: Group) -> list[Pack]:
    """This process's packs of at most so many tokens, but one sequence in any case.

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
    """The results of all sequences in their order, in every process; gradients flow back.

    Where all results of a step meet in one loss, its activations may not fit in memory, however
    large the batch may be that the loss wants. So with several packs the activations of each are
    let go, and computed again when the gradients of its results are due: cached contrastive
    gradients (GradCache, arXiv 2101.06983), by torch's checkpoints. The results are held whole;
    only what lies between token ids and results is computed twice.

    Args:
        compute: Gives the results of the sequences of a pack, each of them (num_rows, width) with
            a number of rows of its own.
        lengths: The tokens of each sequence.
        batch_tokens: The most tokens that are computed at once.
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
    """The places and the results of all processes; results that do not count keep their graph."""
    sizes = [(place, len(result)) for place, result in zip(places, found, strict=True)]
    everyone = group.gather_rows(torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)).tolist()
    rows = torch.cat([*found, *(result[:0] for result in left_out)])
    for result in left_out:
        rows = rows + 0 * result.sum()
    gathered = group.gather_rows(rows)
    return [place for place, _ in everyone], list(gathered.split([size for _, size in everyone]))
