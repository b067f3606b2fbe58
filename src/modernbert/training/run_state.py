"""`RunState`: the complete state of a run, and how it is saved to and restored from checkpoints.

A resumed run must end with the same bytes as one that was never stopped. Therefore everything that
later steps depend on is either here and in every checkpoint (weights, averages of the optimizer,
place in the data, recent losses) or a pure function of the seed and the step: the order of the
data, masks, dropout, learning rate and batch size. No generator's state is kept, because no draw
depends on earlier draws (paper P C.1 tells what a lost state of a sampler costs).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.errors import CheckpointError, NonFiniteLossError, SettingsError
from modernbert.settings import parse
from modernbert.training import checkpoint
from modernbert.training.background import BackgroundSaver, Saved
from modernbert.training.distributed import Group
from modernbert.training.health import Health
from modernbert.training.muon import Muon, matrix_groups
from modernbert.training.optimizer import StableAdamW, Update, embedding_groups
from modernbert.training.task import Phase, Phases, Progress
from modernbert.training.training_settings import TrainingSettings


class RunState:
    """Weights, optimizer, place and recent losses: what decides how a run continues.

    `optimizer` has the settings of the phase, and its state of each tensor carries over from phase
    to phase. `evaluated_step` is the step of the last evaluation in this phase, and `saved_step`
    that of the newest checkpoint; both are -1 before the first.

    Args:
        module: The module to train.
        phases: The phases of the run.
        folder: The folder of the run.
        identity: What the weights depend on, as JSON values; see `checkpoint`.
        group: The processes of the run; all of them call the methods that save and load, together.
        update: As in `StableAdamW`.
    """

    def __init__(
        self,
        module: nn.Module,
        phases: Sequence[Phase],
        folder: Path,
        identity: Mapping[str, Any],
        group: Group,
        update: Update | None = None,
    ) -> None:
        self.module, self.phases = module, Phases(phases)
        self.folder, self.identity, self.group = folder, identity, group
        self.progress, self.health = Progress(), Health()
        self._update = update
        self.optimizer = self._make_optimizer()
        self.evaluated_step = self.saved_step = -1
        self._saved_at = time.monotonic()
        self._saver = BackgroundSaver(folder, identity, group=group)

    @property
    def phase(self) -> Phase:
        phase: Phase = self.phases[self.progress.phase]
        return phase

    @property
    def settings(self) -> TrainingSettings:
        return self.phase.settings

    @property
    def finished(self) -> bool:
        """Whether all tokens of all phases were seen."""
        return self.in_last_phase and self.phase_is_over

    @property
    def in_last_phase(self) -> bool:
        """Whether no phase follows."""
        return self.progress.phase == len(self.phases) - 1

    @property
    def phase_is_over(self) -> bool:
        """Whether all tokens of the phase were seen, or it wants to end."""
        return self.phases.is_over(self.progress) or self.phase.stops()

    def restore(self) -> tuple[str, ...]:
        """Load the newest checkpoint, if there is one; what was set aside is in the warnings.

        Raises:
            CheckpointError: No usable checkpoint is left.
        """
        loaded = checkpoint.load_latest(
            self.folder, self.module, self.optimizer, self.identity, self.group
        )
        if loaded is None:
            return ()
        place = dict(loaded.progress)
        try:
            self.evaluated_step = place.pop("evaluated_step")
            self.health.restore(place.pop("health"))
            num_threads = place.pop("num_threads", None)  # folders of before do not say
            self.progress = parse(Progress, place, where=str(loaded.folder))
        except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
            raise CheckpointError(
                f"{loaded.folder}: progress.json is no progress: {error}"
            ) from None
        self._renew_optimizer()
        self.saved_step = self.progress.step
        # A kill between a save and this leaves one too many.
        self.group.first(
            lambda: checkpoint.keep_newest(self.folder, self.settings.keep_checkpoints)
        )
        return (*loaded.warnings, *_told_of_threads(num_threads, self._num_threads))

    def enter_next_phase(self) -> None:
        """Go over to the next phase, from the state of now or from the end of an earlier one."""
        position = self.progress.position
        phase: Phase = self.phases[self.progress.phase + 1]
        if phase.start_from is not None:
            position = self._load(checkpoint.folder_of_end(self.folder, phase.start_from))
        self.progress = replace(
            self.progress,
            phase=self.progress.phase + 1,
            position=position if phase.goes_on else 0,
        )
        self.evaluated_step = -1
        self._renew_optimizer()
        phase.begin(self.module)

    def keep_end(self) -> None:
        """Keep the state at the end of a phase where a later one starts from it."""
        if not self.phases.is_source(self.progress.phase):
            return
        folder = checkpoint.folder_of_end(self.folder, self.phase.name)
        if not self.group.first(folder.exists):
            checkpoint.save(
                folder, self.module, self.optimizer, self._place(), self.identity, self.group
            )

    def seconds_since_save(self) -> float:
        """Return how long ago the newest checkpoint of this start was begun, or the run itself."""
        return time.monotonic() - self._saved_at

    def save(self) -> None:
        """Begin to save in the background, unless the newest checkpoint has this state already.

        Raises:
            CheckpointError: The save before has failed.
        """
        if self.saved_step == self.progress.step:
            return
        folder = checkpoint.folder_of(self.folder, self.progress.step)
        keep = self.settings.keep_checkpoints
        self._saver.save(folder, self.module, self.optimizer, self._place(), keep=keep)
        self.saved_step, self._saved_at = self.progress.step, time.monotonic()

    def finished_saves(self, *, wait: bool = False) -> Sequence[Saved]:
        """Return the saves that have come to their end since this was last asked.

        Args:
            wait: For the one that is on its way.

        Raises:
            CheckpointError: One has failed.
        """
        if wait:
            self._saver.wait()
        return self._saver.finished()

    def close(self) -> None:
        """Let this process's own save come to its end, whatever becomes of it."""
        self._saver.close()

    def go_back(self, reason: str) -> int:
        """Take the weights of an earlier checkpoint, to go on past the data that was skipped.

        Steps, tokens and the place in the data stay as they are: what was seen is seen. As the
        weights are those of the last step that was taken, only a checkpoint before that one is of
        any use; and when the steps after it fail again, going back once more would not help.

        Args:
            reason: Why the last step was skipped.

        Returns:
            The step of that checkpoint.

        Raises:
            NonFiniteLossError: There is no such checkpoint, or the run went back to it before.
        """
        skipped = self.health.skipped_in_a_row
        self._saver.wait()
        found = self.group.first(lambda: self._newest_before(self.progress.step - skipped))
        if found is None or found[1] <= self.health.went_back_at:
            advice = "look at the data, or begin a run with a lower learning rate"
            if found is not None:
                advice += f" from {found[0]}"
            raise NonFiniteLossError(
                f"step {self.progress.step}: {reason}; {skipped} steps in a row were skipped and "
                f"{'going back did not help' if found else 'there is no earlier checkpoint'}; "
                f"{advice}"
            )
        folder, step = found
        self._load(Path(folder))
        self.health.skipped_in_a_row, self.health.went_back_at = 0, self.progress.step
        return int(step)

    def _newest_before(self, step: int) -> list[Any] | None:
        """The newest checkpoint before a step, as JSON values: its folder and its own step."""
        found = checkpoint.newest_before(self.folder, step)
        return None if found is None else [str(found[0]), found[1]]

    def _load(self, folder: Path) -> int:
        """Take weights and optimizer of a checkpoint; its position in the data."""
        place = checkpoint.load(folder, self.module, self.optimizer, self.identity, self.group)
        return int(place["position"])

    def _place(self) -> dict[str, Any]:
        """All of a checkpoint that is no tensor, as JSON values."""
        return {
            **asdict(self.progress),
            "evaluated_step": self.evaluated_step,
            "health": self.health.state(),
            "num_threads": self._num_threads,
        }

    @property
    def _num_threads(self) -> int | None:
        """How many threads share a sum; None on a GPU, where that makes no difference."""
        device = next(self.module.parameters()).device
        return torch.get_num_threads() if device.type == "cpu" else None

    def _make_optimizer(self) -> StableAdamW:
        """One with the phase's numbers; above all, weight decay is relative to its peak rate."""
        settings = self.settings
        groups = self.phase.groups(self.module, settings.weight_decay)
        if settings.embedding_rate != 1:
            groups = embedding_groups(groups, self.module, settings.embedding_rate)
        numbers: dict[str, Any] = {
            "peak_learning_rate": settings.schedule.peak_learning_rate,
            "betas": settings.betas,
            "eps": settings.epsilon,
            "update": self._update,
        }
        if settings.optimizer == "muon":
            return Muon(matrix_groups(groups, self.module), momentum=settings.momentum, **numbers)
        clipped = settings.optimizer == "stable-adamw"
        return StableAdamW(groups, update_clipping=clipped, **numbers)

    def _renew_optimizer(self) -> None:
        """Give the optimizer the numbers of the phase; what it knows of each tensor stays."""
        known = self.optimizer.state
        self.optimizer = self._make_optimizer()
        self.optimizer.state.update(known)


def _told_of_threads(before: int | None, now: int | None) -> tuple[str, ...]:
    """What is said about a run that goes on with another number of threads."""
    if before is None or now is None or before == now:
        return ()
    return (
        f"the checkpoint was made with {before} threads and the run goes on with {now}: sums are "
        "rounded differently, so its weights will differ in their last digits; to avoid that, set "
        f"OMP_NUM_THREADS={before}",
    )
