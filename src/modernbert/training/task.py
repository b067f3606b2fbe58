"""The words between a trainer and what it trains for: places, steps, tasks and phases."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from modernbert.errors import SettingsError
from modernbert.training.optimizer import parameter_groups
from modernbert.training.training_settings import TrainingSettings


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
        """Return the steps from a place on, without end and always the same; may work ahead."""

    def loss(self, module: nn.Module, micro_batch: Any, *, step: int) -> Tensor:
        """Return the SUM of the losses of a micro-batch's targets, a scalar; under autocast."""

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return figures on held-out data, if there are any; the module is in evaluation mode."""


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


def _nothing(_module: nn.Module) -> None:
    """What a phase does at its borders unless it says otherwise."""


def _nobody(_module: nn.Module, _step: int, _figures: Mapping[str, float]) -> None:
    """Who listens to evaluations unless the phase says otherwise."""


def _never() -> bool:
    """When a phase ends before its tokens are seen, unless it says otherwise."""
    return False


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run: one task under one set of settings.

    The module's weights and the optimizer's averages go over from phase to phase.

    Attributes:
        name: Of the phase; every record of it bears it.
        task: What is trained for.
        settings: How; `total_tokens` are the phase's own.
        goes_on: Whether its task's steps go on from the place in the data of the state that the
            phase starts from; they begin at position 0 otherwise.
        start_from: The earlier phase whose last state this one starts from; that of the phase
            before when None. Its tokens are those of the run all the same: none is forgotten.
        identity: What else makes the phase what it is, as JSON values.
        groups: The optimizer's groups of a module's parameters, from its weight decay; the rate of
            one with a `rate_factor` is multiplied by it.
        evaluates_first: Whether there is an evaluation before its first step.
        stops: Whether it is to end now, though not all of its tokens were seen; for the last phase.
        begin: Makes the module ready for it, at its beginning and after each resume in it.
        evaluated: Hears of each evaluation after a step of the phase, with the module as it is
            then. It may hear of one again after a resume; the figures are the same then.
        end: Delivers the phase's result. It is called when all is saved, and once more after a
            resume if the process died meanwhile, so it must mind what is there already.
    """

    name: str
    task: Task
    settings: TrainingSettings
    goes_on: bool = False
    start_from: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    groups: Callable[[nn.Module, float], list[dict[str, Any]]] = parameter_groups
    evaluates_first: bool = True
    stops: Callable[[], bool] = _never
    begin: Callable[[nn.Module], None] = _nothing
    evaluated: Callable[[nn.Module, int, Mapping[str, float]], None] = _nobody
    end: Callable[[nn.Module], None] = _nothing

    @property
    def full_identity(self) -> dict[str, Any]:
        """All that the weights at its end depend on, besides those at its beginning."""
        return {
            **self.identity,
            "training": self.settings.identity,
            "goes_on": self.goes_on,
            "start_from": self.start_from,
        }


class Phases(Sequence[Phase]):
    """The phases of a run in their order, and where each begins and ends.

    A phase ends with the first step that reaches the tokens of it and of all before it, so that
    what one step is too large is taken from the next phase. Borders are thereby known beforehand.

    Raises:
        SettingsError: No phase, a name twice, or a `start_from` that is no earlier phase.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        check_names([(phase.name, phase.start_from) for phase in phases])
        self._phases = tuple(phases)
        self._ends = tuple(accumulate(phase.settings.total_tokens for phase in phases))

    def __getitem__(self, index: Any) -> Any:
        return self._phases[index]

    def __len__(self) -> int:
        return len(self._phases)

    @property
    def total_tokens(self) -> int:
        return self._ends[-1]

    def tokens_in(self, progress: Progress) -> int:
        """Return how many tokens of its own phase a place has behind it."""
        return progress.tokens - (self._ends[progress.phase - 1] if progress.phase else 0)

    def is_over(self, progress: Progress) -> bool:
        """Return whether all tokens of the place's phase were seen."""
        return progress.tokens >= self._ends[progress.phase]

    def is_source(self, index: int) -> bool:
        """Return whether a later phase starts from the end of this one."""
        return any(phase.start_from == self._phases[index].name for phase in self._phases)


def check_names(phases: Sequence[tuple[str, str | None]]) -> None:
    """Refuse phases that cannot be told apart or that start from none.

    Args:
        phases: The name and the `start_from` of each.

    Raises:
        SettingsError: As `Phases`.
    """
    names = [name for name, _ in phases]
    if not names:
        raise SettingsError("phases: got none, expected at least one")
    for index, (name, start_from) in enumerate(phases):
        if name in names[:index]:
            raise SettingsError(f"phases: {name!r} occurs twice; give each its own name")
        if start_from is not None and start_from not in names[:index]:
            earlier = ", ".join(names[:index]) or "there is none"
            raise SettingsError(
                f"phases: {name}: start_from: got {start_from!r}, expected an earlier phase: "
                f"{earlier}"
            )
