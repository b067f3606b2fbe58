"""What the processes of a group do in the tests of fine-tuning; see `tests.processes`."""

import os
import signal
from typing import Any

import torch

from modernbert.tasks.finetune import finetune
from modernbert.tasks.tuning.task import Tuning
from modernbert.training.distributed import joined
from modernbert.training.interruption import Interrupted


def tune(verb: str, recipe: dict[str, Any], told: tuple[int, int] | None = None) -> Any:
    """Fine-tune; the best scores, or the exit code of a run that was interrupted.

    told: process and step, at which that one is told to stop, by SIGTERM.
    """
    if told is not None and os.environ.get("RANK", "0") == str(told[0]):
        loss = Tuning.loss

        def with_signal(task: Tuning, *arguments: Any, step: int) -> torch.Tensor:
            if step == told[1]:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(task, *arguments, step=step)

        Tuning.loss = with_signal  # type: ignore[method-assign]
    try:
        results = finetune(verb, recipe)
    except Interrupted as stopped:
        return stopped.exit_code
    return [results.best.steps, results.best.dev, results.best.test]


def gather() -> list[Any]:
    """Rows of unequal numbers, joined; and the gradients that come back for them."""
    with joined(20) as group:
        rows = torch.full((group.rank, 2), float(group.rank), requires_grad=True)
        found = group.gather_rows(rows)
        weights = torch.arange(found.numel()).view_as(found) * float(group.rank + 1)
        (found * weights).sum().backward()
        assert rows.grad is not None
        return [found.tolist(), rows.grad.tolist()]
