"""What all fine-tunings share: how to train, and which runs a sweep is made of."""

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Generic, TypeVar

from modernbert.errors import SettingsError
from modernbert.training.precision import Precision


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How to train; on labels or on rankings.

    epochs: how often each row is seen.
    learning_rate: the highest; 5e-5 x (768 / hidden_size)^2 when None, as small models want larger
        steps: at a width of 256, entities of CoNLL-2003 came to 0.78 in place of 0.70 with a third
        of it.
    weight_decay: of matrices and embeddings, a step at the highest rate: see `StableAdamW`.
    warmup_fraction: of the run; over the rest the rate goes down to 0, linearly.
    batch_size: rows of a step.
    batch_tokens: the most tokens of a step, in place of a number of rows.
    micro_batch_tokens: the most tokens whose activations are held at once; by device when None.
        The result is the same.
    layer_decay: each layer's rate is that of the layer above it times this.
    freeze_embeddings: whether token embeddings stay as they are.
    freeze_layers: how many of the first layers stay as they are.
    precision: what to compute in; the weights are float32.
    evaluations_per_epoch: on the rows of `dev`.
    patience: evaluations without a better one after which a run stops; None for never.

    Raises:
        SettingsError: a number out of its range.
    """

    epochs: int = 3
    learning_rate: float | None = None
    weight_decay: float = 1e-6
    warmup_fraction: float = 0.1
    batch_size: int = 32
    batch_tokens: int | None = None
    micro_batch_tokens: int | None = None
    layer_decay: float = 1.0
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    precision: Precision = "auto"
    evaluations_per_epoch: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        at_least_one = ("epochs", "batch_size", "evaluations_per_epoch")
        for name in (*at_least_one, "batch_tokens", "micro_batch_tokens", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name}: got {value}, expected 1 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"learning_rate: got {self.learning_rate}, expected above 0")
        if not 0 < self.layer_decay <= 1:
            raise SettingsError(
                f"layer_decay: got {self.layer_decay}, expected above 0 and up to 1"
            )
        if not 0 <= self.warmup_fraction < 1:
            raise SettingsError(
                f"warmup_fraction: got {self.warmup_fraction}, expected from 0 to below 1"
            )
        if not 0 <= self.weight_decay < 1:
            raise SettingsError(f"weight_decay: got {self.weight_decay}, expected 0 to below 1")
        if self.freeze_layers < 0:
            raise SettingsError(f"freeze_layers: got {self.freeze_layers}, expected 0 or more")

    def peak_rate(self, hidden_size: int) -> float:
        """The highest learning rate for a model of some width."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(5e-5 * (768 / hidden_size) ** 2)


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Several runs: every combination of these; what is empty has the one value of `training`.

    seeds: of a new head's first weights and of the order of the rows.
    processes: how many runs at once; by the number of cores when None, one on a GPU.

    Raises:
        SettingsError: a value twice, or a seed below 0.
    """

    seeds: tuple[int, ...] = (0,)
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    processes: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0:
            raise SettingsError(f"seeds: got {self.seeds}, expected numbers from 0 on")
        for name in ("seeds", "learning_rates", "weight_decays", "epochs"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise SettingsError(f"{name}: a value is there twice")
        if self.processes is not None and self.processes < 1:
            raise SettingsError(f"processes: got {self.processes}, expected 1 or more")


S = TypeVar("S", bound=RunSettings)


@dataclass(frozen=True, kw_only=True)
class Run(Generic[S]):
    """One training of a recipe."""

    seed: int
    training: S

    @property
    def name(self) -> str:
        """Of its folder; distinct within a recipe."""
        chosen = self.training
        rate = "default" if chosen.learning_rate is None else f"{chosen.learning_rate:g}"
        return f"lr-{rate}-wd-{chosen.weight_decay:g}-epochs-{chosen.epochs}-seed-{self.seed}"


def runs_of(base: S, sweep: SweepSettings) -> list[Run[S]]:
    """All runs, the seeds of one combination beside each other."""
    settings = [
        replace(base, learning_rate=rate, weight_decay=decay, epochs=epochs)
        for rate, decay, epochs in product(
            sweep.learning_rates or (base.learning_rate,),
            sweep.weight_decays or (base.weight_decay,),
            sweep.epochs or (base.epochs,),
        )
    ]
    return [Run(seed=seed, training=each) for each in settings for seed in sweep.seeds]
