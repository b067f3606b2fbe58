"""What the processes of a group do in the tests of this folder; see `tests.processes`."""

import os
import signal
import time
from typing import Any

import torch

from modernbert.errors import RunError
from modernbert.training.distributed import Group, joined


def talk() -> dict[str, Any]:
    """Every way in which the processes of a group speak with each other."""
    with joined(20) as group:
        tensors = [
            torch.full((3, 2), float(group.rank + 1)),
            torch.full((2, 3), 10.0 * (group.rank + 1)).T,  # not contiguous
            torch.tensor(group.rank + 0.5, dtype=torch.float64),
            torch.ones(1) * group.rank,
        ]
        group.sum(tensors)
        big = [torch.full((9_000_000,), 1.0 + group.rank), torch.ones(5)]  # two pieces
        group.sum(big)
        spread = torch.full((2, 2), float(group.rank)).T
        group.broadcast(spread)
        return {
            "place": [group.rank, group.size, group.is_first, str(group.device)],
            "rows": group.gather([group.rank, 0.25]),
            "sums": [tensor.unique().tolist() for tensor in (*tensors, *big)],
            "spread": spread.unique().tolist(),
            "first": group.first(lambda: {"rank": group.rank, "text": "é"}),
            "part": list(group.part(5)),
            "agreed": group.agree("recipe", "same"),
        }


def fail_in_the_first() -> None:
    def fail() -> None:
        raise RunError("the folder is taken")

    with joined(20) as group:
        group.first(fail)


def disagree() -> None:
    with joined(20) as group:
        group.agree("recipe", "one" if group.rank == 0 else "another")


def lose(who: int, how: str, timeout_seconds: float) -> None:
    """Process `who` is killed, stopped, or leaves with an error, and the others wait for it."""
    with joined(timeout_seconds) as group:
        group.gather([1.0])
        if group.rank == who:
            _go(how)
        _sum_something(group)


def _go(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hangs":
        time.sleep(4)
        os._exit(9)
    else:
        raise RunError("a shard is torn")


def _sum_something(group: Group) -> None:
    group.sum([torch.ones(3)])
