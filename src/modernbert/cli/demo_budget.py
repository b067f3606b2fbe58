"""How much the demo trains: as much as this machine does in the minutes that a demo may take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

TOTAL_SECONDS = 240.0
# The end of a demo: the last evaluation, the model, the report and the examples.
_AFTERWARDS_SECONDS = 12.0
_SHORTEST_TRAINING_SECONDS = 60.0
# A machine rarely keeps the speed of a few seconds, and the first steps and checkpoints take more.
_CAUTION = 0.9
_NUM_EVALUATIONS = 8
_EVALUATION_TOKENS = (8_000, 40_000)
_EVALUATION_SHARE = 0.012  # of the tokens, each; a forward costs a third of a training step
_SHORTEST_TOKENS = 20_000
_STEP_TOKENS = 1_024


@dataclass(frozen=True, kw_only=True)
class DemoModel:
    """A model that a demo may train.

    Attributes:
        sizes: Its table in a recipe, as TOML lines.
        learning_rate: The peak of the schedule.
        fewest_tokens: With fewer a smaller model learns more in the same time; 0 for the smallest.
            The larger learns more from each token: its held-out loss was 4.7 after 600,000 of
            them, that of a model of width 128 was 5.8 after 800,000.
        most_tokens: More are not needed to show that it learns.
    """

    sizes: str
    learning_rate: float
    fewest_tokens: int
    most_tokens: int


MODELS = (
    DemoModel(
        sizes='preset = "tiny"                 # 6 layers, 256 wide',
        learning_rate=1e-3,
        fewest_tokens=300_000,
        most_tokens=3_400_000,
    ),
    DemoModel(
        sizes='preset = "tiny"                 # made smaller, as this machine is slow or busy\n'
        "num_layers = 4\nhidden_size = 192\nintermediate_size = 288\nnum_heads = 3",
        learning_rate=1.5e-3,
        fewest_tokens=0,
        most_tokens=3_400_000,
    ),
)


@dataclass(frozen=True, kw_only=True)
class DemoChoice:
    """What a demo trains.

    Attributes:
        model: The size of the model that this machine can train.
        total_tokens: How many tokens it sees.
        tokens_per_second: The speed that was measured beforehand.
        seconds: How long that will take, evaluations included.
    """

    model: DemoModel
    total_tokens: int
    tokens_per_second: float
    seconds: float

    @property
    def evaluation_tokens(self) -> int:
        """Held-out tokens of each evaluation: fewer where there is little time."""
        least, most = _EVALUATION_TOKENS
        least = min(least, self.total_tokens // _NUM_EVALUATIONS // 2)
        return int(min(most, max(least, _EVALUATION_SHARE * self.total_tokens)))

    def as_recipe(self) -> dict[str, str]:
        """Return the values that depend on the choice, by their names in the recipe's template."""
        steps = self.total_tokens // _STEP_TOKENS
        return {
            "model": self.model.sizes,
            "total_tokens": f"{self.total_tokens:_}",
            "evaluate_every_steps": str(max(1, steps // _NUM_EVALUATIONS)),
            "peak_learning_rate": f"{self.model.learning_rate:g}",
            "warmup_tokens": f"{round(0.1 * self.total_tokens):_}",
            "decay_tokens": f"{round(0.7 * self.total_tokens):_}",
            "evaluation_tokens": f"{self.evaluation_tokens:_}",
        }


def fitting_threads(num_threads: int, load: float) -> int:
    """Choose how many threads compute on a machine with other work.

    Threads wait for each other several times in each layer, so that one which does not get a core
    holds all of them up: on two cores with eight programs one thread is several times faster.

    Args:
        num_threads: As many as there are cores.
        load: Programs that ran or wanted to, on average over the last minute.

    Returns:
        All of them, or on a machine with half as many programs again as cores a fair share.

    >>> fitting_threads(2, 1.0), fitting_threads(2, 8.0), fitting_threads(16, 32.0)
    (2, 1, 8)
    """
    if load <= 1.5 * num_threads:
        return num_threads
    return max(1, round(num_threads**2 / load))


def choose(
    speed_of: Callable[[DemoModel], float],
    seconds_left: Callable[[], float],
    models: Sequence[DemoModel] = MODELS,
) -> DemoChoice:
    """Choose the largest model that learns something in the time that is left.

    Args:
        speed_of: Measures how many tokens of a model this machine trains in a second.
        seconds_left: Tells how much of the demo's time is left, at the time of the call.
        models: From the largest to the smallest.

    Returns:
        The first model that sees its fewest tokens in the time, or the last one.
    """
    for model in models:
        speed = speed_of(model)
        seconds = max(_SHORTEST_TRAINING_SECONDS, seconds_left() - _AFTERWARDS_SECONDS)
        affordable = _CAUTION * speed * seconds / (1 + _NUM_EVALUATIONS * _EVALUATION_SHARE / 3)
        if affordable >= model.fewest_tokens:
            break
    tokens = round(min(model.most_tokens, max(_SHORTEST_TOKENS, affordable)) / 10_000) * 10_000
    return DemoChoice(
        model=model,
        total_tokens=tokens,
        tokens_per_second=speed,
        seconds=seconds * tokens / affordable,
    )
