"""The settings of a training run, of its learning rate, and of how its processes compute.

The learning rate is a pure function of tokens (P section 2.2.2 and table 3). Nothing is remembered
between steps: a run that resumes at some count of tokens has the rate of an unbroken one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from modernbert.errors import SettingsError
from modernbert.settings import Doc, OptimizerName, Settings, TrainingPrecision, to_mapping

# These leave the weights as they are, so a run may go on under others.
_FREE_SETTINGS = (
    "checkpoint_every_steps",
    "checkpoint_every_seconds",
    "evaluate_every_steps",
    "keep_checkpoints",
    "max_skipped_steps",
)


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Settings):
    """Linear warm-up from 0, then the peak rate, then perhaps a decay at the end of the phase.

    Raises:
        SettingsError: A value is out of its range, or a decay has no length or the reverse.
    """

    peak_learning_rate: Annotated[float, Gt(0), Doc("The learning rate between warm-up and decay.")]
    warmup_tokens: Annotated[
        int, Ge(0), Doc("The number of tokens over which the rate rises from 0.")
    ] = 0
    decay: Annotated[
        Literal["constant", "1-sqrt", "linear"],
        Doc(
            "`constant` keeps the peak to the end; the others lower the rate over the last tokens."
        ),
    ] = "constant"
    decay_tokens: Annotated[
        int, Ge(0), Doc("The length of the decay in tokens; 0 for `constant`.")
    ] = 0
    final_fraction: Annotated[
        float,
        Interval(ge=0, le=1),
        Doc("The rate after the last token, relative to the peak."),
    ] = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.decay != "constant") != (self.decay_tokens > 0):
            raise SettingsError(
                f'decay_tokens: got {self.decay_tokens} with decay = "{self.decay}"; "1-sqrt" and '
                '"linear" need their length in tokens, "constant" has none'
            )

    def check_fits(self, total_tokens: int) -> None:
        """Refuse a phase that is shorter than its warm-up and its decay together.

        Raises:
            SettingsError: Naming the three lengths.
        """
        if self.warmup_tokens + self.decay_tokens > total_tokens:
            raise SettingsError(
                f"warmup_tokens ({self.warmup_tokens}) and decay_tokens ({self.decay_tokens}) "
                f"together are more than the run's {total_tokens} tokens"
            )


def learning_rate(settings: ScheduleSettings, tokens: int, total_tokens: int) -> float:
    """Return the rate of the step that ENDS at `tokens`, of a phase of `total_tokens`.

    Counting a step's own tokens gives the first step of a warm-up a rate above 0 and the last of
    a decay exactly `final_fraction` of the peak. With n tokens, N in total, N_c of decay and the
    final fraction a, the decay is a + (1 - a) * (1 - sqrt((n - (N - N_c)) / N_c)), or without
    the root when it is linear.

    >>> settings = ScheduleSettings(
    ...     peak_learning_rate=8.0, warmup_tokens=100, decay="1-sqrt", decay_tokens=400,
    ...     final_fraction=0.0)
    >>> [learning_rate(settings, tokens, 1000) for tokens in (25, 100, 600, 700, 1000)]
    [2.0, 8.0, 8.0, 4.0, 0.0]
    """
    tokens = min(tokens, total_tokens)
    if tokens < settings.warmup_tokens:
        return settings.peak_learning_rate * tokens / settings.warmup_tokens
    decayed = tokens - (total_tokens - settings.decay_tokens)
    if decayed <= 0:
        return settings.peak_learning_rate
    share = decayed / settings.decay_tokens
    remaining = 1 - (share if settings.decay == "linear" else math.sqrt(share))
    fraction = settings.final_fraction + (1 - settings.final_fraction) * remaining
    return settings.peak_learning_rate * fraction


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How to train.

    The optimizer and its numbers are by default those that learn most from a small budget, as the
    race in benchmarks/learning found; the paper's (P table 3) are those of `stable-adamw`.

    Raises:
        SettingsError: A value is out of its range, or the schedule is longer than the run.
    """

    total_tokens: Annotated[
        int, Ge(1), Doc("The run, or its phase, ends with the first step that reaches this number.")
    ]
    schedule: ScheduleSettings
    weight_decay: Annotated[
        float, Doc("Weight decay of matrices and embeddings per step, at the peak learning rate.")
    ] = 1e-5
    optimizer: Annotated[
        OptimizerName,
        Doc(
            "`adamw`; `stable-adamw`, the paper's, whose updates are clipped; or `muon`, which "
            "orthogonalises the updates of the matrices inside layers and leaves the rest to AdamW."
        ),
    ] = "adamw"
    beta1: Annotated[float, Doc("The decay rate of the mean of gradients.")] = 0.9
    beta2: Annotated[
        float | None,
        Doc(
            "The decay rate of the mean of their squares.",
            default="0.98 of `stable-adamw`, else 0.999",
        ),
    ] = None
    eps: Annotated[
        float | None,
        Doc("Added to the root of that mean.", default="1e-6 of `stable-adamw`, else 1e-8"),
    ] = None
    embedding_rate: Annotated[
        float,
        Gt(0),
        Doc("The learning rate of the token embeddings, relative to that of all other weights."),
    ] = 1.0
    momentum: Annotated[float, Doc("The share of earlier gradients in Muon's momentum.")] = 0.95
    gradient_clipping: Annotated[
        float | None,
        Ge(0),
        Doc(
            "Scale gradients down to this norm; 0 for never.",
            default="never with `stable-adamw`, as in the paper, else 1",
        ),
    ] = None
    precision: Annotated[
        TrainingPrecision,
        Doc(
            "`auto` computes in bfloat16 if the device has hardware for it; weights are float32. "
            "`float8` does so too, but for the large products of the layers and the gradients of "
            "their inputs, on NVIDIA's GPUs since Ada; not measured."
        ),
    ] = "auto"
    seed: Annotated[int, Ge(0), Doc("The seed of the dropout.")] = 0
    max_skipped_steps: Annotated[
        int,
        Ge(0),
        Doc("After more non-finite steps in a row than this, the run goes back to a checkpoint."),
    ] = 5
    spike_factor: Annotated[
        float | None,
        Gt(1),
        Doc("Report a loss above this many times the median of the last 64; none for never."),
    ] = None
    skip_spikes: Annotated[bool, Doc("Skip the steps that `spike_factor` reports.")] = False
    evaluate_every_steps: Annotated[
        int | None,
        Ge(1),
        Doc("Also evaluate at these steps; none for only before the first and after the last."),
    ] = None
    checkpoint_every_steps: Annotated[
        int | None, Ge(1), Doc("Save a checkpoint every so many steps; none for never.")
    ] = None
    checkpoint_every_seconds: Annotated[
        float | None, Gt(0), Doc("Save a checkpoint every so many seconds; none for never.")
    ] = 600.0
    keep_checkpoints: Annotated[int, Ge(1), Doc("The number of newest checkpoints to keep.")] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip_spikes and self.spike_factor is None:
            raise SettingsError("skip_spikes: needs spike_factor, which defines a spike")
        self.schedule.check_fits(self.total_tokens)

    @classmethod
    def unfold(cls, mapping: Mapping[str, Any], _where: str) -> dict[str, Any]:
        """Read a file, perhaps of a version that had `update_clipping` in place of `optimizer`.

        Such a file did not clip gradients unless it said so.
        """
        known = {name: value for name, value in mapping.items() if name != "update_clipping"}
        if "update_clipping" not in mapping:
            return known
        former = {
            "optimizer": "stable-adamw" if mapping["update_clipping"] else "adamw",
            "beta2": 0.98,
            "eps": 1e-6,
            "gradient_clipping": 0.0,
        }
        return {**former, **known}

    @property
    def betas(self) -> tuple[float, float]:
        """Both decay rates, with the optimizer's own where none is given."""
        own = 0.98 if self.optimizer == "stable-adamw" else 0.999
        return self.beta1, own if self.beta2 is None else self.beta2

    @property
    def epsilon(self) -> float:
        """The epsilon, with the optimizer's own where none is given."""
        own = 1e-6 if self.optimizer == "stable-adamw" else 1e-8
        return own if self.eps is None else self.eps

    @property
    def largest_norm(self) -> float | None:
        """The norm down to which gradients are scaled; None for never."""
        own = None if self.optimizer == "stable-adamw" else 1.0
        norm = own if self.gradient_clipping is None else self.gradient_clipping
        return norm or None

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the weights depend on: a run cannot go on under others.

        Their names are those of versions before `optimizer`, so that their runs go on.
        """
        own = ("optimizer", "momentum", "gradient_clipping", "embedding_rate")
        kept = {
            name: value
            for name, value in to_mapping(self).items()
            if name not in (*_FREE_SETTINGS, *own)
        }
        kept |= {"beta2": self.betas[1], "eps": self.epsilon}
        kept["update_clipping"] = self.optimizer == "stable-adamw"
        if self.largest_norm is not None:
            kept["gradient_clipping"] = self.largest_norm
        if self.embedding_rate != 1:
            kept["embedding_rate"] = self.embedding_rate
        if self.optimizer == "muon":
            kept["muon"] = {"momentum": self.momentum}
        return kept


DEFAULT_TIMEOUT_SECONDS = 600.0

Sharding = Literal["none", "full"]


@dataclass(frozen=True, kw_only=True)
class ComputationSettings(Settings):
    """How the processes of a run compute; a run may be continued with other values."""

    sharding: Annotated[
        Sharding,
        Doc("`full` keeps weights and optimizer state in shards over all processes (FSDP2)."),
    ] = "none"
    recompute: Annotated[
        bool, Doc("Save memory: recompute a layer's activations in the backward pass.")
    ] = False
    compile: Annotated[
        bool, Doc("Compile the layers with torch.compile, for GPUs; the first steps take longer.")
    ] = False
    timeout_seconds: Annotated[
        float, Gt(0), Doc("Give up on a process that does not respond for this many seconds.")
    ] = DEFAULT_TIMEOUT_SECONDS


TrackerName = Literal["trackio", "wandb", "mlflow", "tensorboard"]


@dataclass(frozen=True, kw_only=True)
class LogSettings(Settings):
    """Where a run is logged to beside its own folder; a run may be continued with other values."""

    to: Annotated[
        tuple[TrackerName, ...],
        Doc("Also log to `trackio`, `wandb`, `mlflow` or `tensorboard`.", flags=("--log-to",)),
    ] = ()
    project: Annotated[
        str,
        Doc("The project, or experiment, that the run belongs to there.", flags=("--log-project",)),
    ] = "modernbert"
