"""The words between a trainer and what it trains for: places, steps, tasks and results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The whole state of a run's place.

    Attributes:
        step, tokens: Taken and seen since the run began, over all of its phases.
        position: In the data of the phase.
        phase: The number of the phase, from 0.
    """

    step: int = 0
    tokens: int = 0
    position: int = 0
    phase: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's data: its micro-batches, and what the trainer must know of them.

    Attributes:
        progress: The run's place after the step, in the same phase.
        num_targets: Predicted tokens of all micro-batches together; their mean is the loss.
        num_tokens: Real tokens of all micro-batches together.
        fill: Num_tokens over the capacity of the micro-batches.
        figures: What else the step's record is to tell.
    """

    micro_batches: Sequence[Any]
    progress: Progress
    num_targets: int
    num_tokens: int
    fill: float
    figures: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """What a module is trained for."""

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The steps from a place on, without end and always the same; may work ahead."""

    def loss(self, module: nn.Module, micro_batch: Any, *, step: int) -> Tensor:
        """The SUM of the losses of a micro-batch's targets, a scalar; called under autocast."""

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Figures on held-out data; empty without any. The module is in evaluation mode."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended.

    Attributes:
        status: `finished` now; `already_finished` by an earlier start, so nothing was done; or
            `interrupted` by a signal, with everything saved.
        evaluation: The figures of the last evaluation of this start.
        signal_number: That of the signal, when interrupted.
    """

    status: Literal["finished", "already_finished", "interrupted"]
    progress: Progress
    evaluation: dict[str, float]
    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """What a shell expects: 0, or 128 and the signal's number (130 Ctrl-C, 143 SIGTERM)."""
        return 0 if self.signal_number is None else 128 + self.signal_number
