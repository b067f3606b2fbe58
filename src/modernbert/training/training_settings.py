"""The settings of a training run."""

from dataclasses import dataclass
from typing import Any

from modernbert.errors import SettingsError
from modernbert.settings import to_mapping
from modernbert.training.precision import Precision
from modernbert.training.schedule import ScheduleSettings

# These leave the weights as they are, so a run may go on under others.
_FREE_SETTINGS = (
    "checkpoint_every_steps",
    "checkpoint_every_seconds",
    "evaluate_every_steps",
    "keep_checkpoints",
    "max_skipped_steps",
)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train; the defaults are the paper's (P table 3) where it has a say.

    total_tokens: the run, or its phase, ends with the first step that reaches them.
    schedule: the learning rate over those tokens.
    weight_decay: of matrices and embeddings, a step at the peak rate.
    beta1, beta2, eps: of StableAdamW.
    update_clipping: of StableAdamW; without it, it is AdamW.
    gradient_clipping: the largest norm of the gradients, to which they are scaled down; None, as in
        the paper, for any.
    precision: what to compute in; the weights are float32.
    seed: of the random numbers that a module draws while training.
    max_skipped_steps: a step whose loss or gradient is NaN or infinite is skipped; after more than
        these in a row the run goes back to a checkpoint, once.
    spike_factor: a loss above so many times the median of the last ones is reported; None for no.
    skip_spikes: and its step is skipped too.
    evaluate_every_steps: besides before the first step and after the last; None for these alone.
    checkpoint_every_steps, checkpoint_every_seconds: whichever comes first; None for never.
    keep_checkpoints: how many of the newest stay.

    Raises:
        SettingsError: a number out of its range, or a schedule longer than the run.
    """

    total_tokens: int
    schedule: ScheduleSettings
    weight_decay: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    update_clipping: bool = True
    gradient_clipping: float | None = None
    precision: Precision = "auto"
    seed: int = 0
    max_skipped_steps: int = 5
    spike_factor: float | None = None
    skip_spikes: bool = False
    evaluate_every_steps: int | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_seconds: float | None = 600.0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in (
            "total_tokens",
            "gradient_clipping",
            "evaluate_every_steps",
            "checkpoint_every_steps",
            "checkpoint_every_seconds",
            "keep_checkpoints",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"{name}: got {value}, expected above 0")
        for name in ("seed", "max_skipped_steps"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if self.spike_factor is not None and not self.spike_factor > 1:
            raise SettingsError(f"spike_factor: got {self.spike_factor}, expected above 1")
        if self.skip_spikes and self.spike_factor is None:
            raise SettingsError("skip_spikes: needs spike_factor, which says what a spike is")
        self.schedule.check_fits(self.total_tokens)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the weights depend on: a run cannot go on under others."""
        mapping = to_mapping(self)
        return {name: value for name, value in mapping.items() if name not in _FREE_SETTINGS}
