"""`modernbert demo`: trains a tiny model in minutes, from texts that every machine has.

Each stage leaves its result in the output folder and is passed over when that is there, so that a
demo that was stopped goes on where it was. The numbers of the training are in `demo.toml`, apart
from those that depend on the speed of the machine: `choose` chooses them once.
"""

import json
import os
import shlex
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

from modernbert.cli import pretrain
from modernbert.cli.demo_results import report_results
from modernbert.cli.options import argument
from modernbert.cli.prepare import prepare_shards
from modernbert.cli.terminal import counted, duration, short_count, tell
from modernbert.cli.tokenizer import train_on

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
_STEP_TOKENS = 512
_SHORT_SHARE, _WARMUP_SHARE = 0.25, 0.1  # of the tokens
# Longer trainings want lower rates: docs/learning.md has 7e-4 as the best at this length, and at 4
# million tokens 5e-4 is far better.
_FULL_RATE_TOKENS = 1_400_000


@dataclass(frozen=True, kw_only=True)
class DemoModel:
    """A model that a demo may train.

    Attributes:
        sizes: Its table in a recipe, as TOML lines.
        learning_rate: The peak of the schedule, of runs that are not long.
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
        learning_rate=7e-4,
        fewest_tokens=300_000,
        most_tokens=3_400_000,
    ),
    DemoModel(
        sizes='preset = "tiny"                 # made smaller, as this machine is slow or busy\n'
        "num_layers = 4\nhidden_size = 192\nintermediate_size = 288\nnum_heads = 3",
        learning_rate=1e-3,
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
        short = round(_SHORT_SHARE * self.total_tokens)
        warmup = round(_WARMUP_SHARE * self.total_tokens)
        long = self.total_tokens - short
        fraction = long / (self.total_tokens - warmup)  # of the peak, where the long phase begins
        lowered = min(1.0, (_FULL_RATE_TOKENS / self.total_tokens) ** 0.5)
        rate = lowered * self.model.learning_rate
        return {
            "model": self.model.sizes,
            "evaluate_every_steps": str(max(1, steps // _NUM_EVALUATIONS)),
            "peak_learning_rate": f"{rate:.4g}",
            "warmup_tokens": f"{warmup:_}",
            "short_tokens": f"{short:_}",
            "short_decay_tokens": f"{short - warmup:_}",
            "short_final_fraction": f"{fraction:.4g}",
            "long_tokens": f"{long:_}",
            "long_learning_rate": f"{fraction * rate:.4g}",
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


VOCAB_SIZE = 8192


@dataclass(frozen=True)
class DemoFolder:
    """Where the stages of a demo leave their results."""

    path: Path

    @property
    def train_text(self) -> Path:
        """The corpus to train on."""
        return self.path / "corpus" / "train.jsonl"

    @property
    def held_out_text(self) -> Path:
        """The files that are kept apart for evaluation."""
        return self.path / "corpus" / "held-out.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return self.path / "tokenizer"

    @property
    def train_shards(self) -> Path:
        """The corpus as tokens."""
        return self.path / "shards" / "train"

    @property
    def held_out_shards(self) -> Path:
        """The held-out files as tokens."""
        return self.path / "shards" / "held-out"

    @property
    def recipe(self) -> Path:
        """The recipe, which a user may edit."""
        return self.path / "recipe.toml"

    @property
    def run(self) -> Path:
        """The run's folder; the model is in its folder `model`."""
        return self.path / "run"


def demo(
    output: Annotated[Path, argument("OUT", "The folder for everything that the demo makes.")],
) -> None:
    """Train a tiny model from the texts of this Python installation.

    The demo collects the code, docstrings and manual of Python, trains a tokenizer, writes shards
    and pretrains. It measures how fast this machine trains and chooses the number of tokens so that
    all of it takes about four minutes; on a slow or busy machine it trains a smaller model. No
    network is needed. If you stop it, the same command continues where it stopped.
    """
    import torch

    from modernbert.settings import load as load_settings
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe

    begun, load = time.monotonic(), os.getloadavg()[0]  # before its own work adds to the load
    folder = DemoFolder(output)
    _collect(folder)
    _train_tokenizer(folder)
    _prepare(folder)
    torch.set_num_threads(fitting_threads(torch.get_num_threads(), load))
    if not folder.recipe.exists():  # one that is there may be your own
        _choose_recipe(folder, lambda: TOTAL_SECONDS - (time.monotonic() - begun))
    recipe = load_settings(PretrainingRecipe, folder.recipe)
    _stage(4, "pretraining", f"as {folder.recipe} says; Ctrl-C saves and stops")
    pretrain.train(recipe, go_on=f"modernbert demo {shlex.quote(str(output))}")
    report_results(recipe, folder.recipe)


def _collect(folder: DemoFolder) -> None:
    # The training part is written last, so that both are there when it is.
    if not folder.train_text.exists():
        from modernbert.data.python_corpus import collect_python_corpus

        collect_python_corpus(folder.train_text.parent)
    num_bytes = sum(path.stat().st_size for path in (folder.train_text, folder.held_out_text))
    _stage(1, "corpus", f"{num_bytes / 1e6:.1f} MB of code and documentation from Python itself")


def _train_tokenizer(folder: DemoFolder) -> None:
    from modernbert.tokenizer.tokenizer import Tokenizer

    if not (folder.tokenizer / "tokenizer_config.json").exists():
        train_on([folder.train_text], VOCAB_SIZE).save_pretrained(folder.tokenizer)
    vocab_size = Tokenizer.from_pretrained(folder.tokenizer).vocab_size
    _stage(2, "tokenizer", f"{vocab_size:,} entries, learned from the corpus")


def _prepare(folder: DemoFolder) -> None:
    from modernbert.data.settings import PrepareSettings

    settings = PrepareSettings(held_out=0.0)
    train, held_out = (
        prepare_shards([text], shards, folder.tokenizer, settings).train
        for text, shards in (
            (folder.train_text, folder.train_shards),
            (folder.held_out_text, folder.held_out_shards),
        )
    )
    _stage(
        3,
        "shards",
        f"{counted(train.num_documents, 'document')}, {short_count(train.num_tokens)} tokens "
        f"to train on; {short_count(held_out.num_tokens)} tokens of other files held out",
    )


def _choose_recipe(folder: DemoFolder, seconds_left: Callable[[], float]) -> None:
    """Measure this machine and write the recipe that fits it."""
    tell("measuring how fast this machine trains")
    choice = choose(partial(_speed_of, folder), seconds_left)
    if choice.model is not MODELS[0]:
        tell("this machine is slow or busy: a smaller model learns more in a few minutes")
    tell(
        f"{choice.tokens_per_second:,.0f} tokens/s: {short_count(choice.total_tokens)} tokens "
        f"will take about {duration(choice.seconds)}"
    )
    folder.recipe.write_text(_recipe_text(folder, choice), encoding="utf-8")


def _speed_of(folder: DemoFolder, model: DemoModel) -> float:
    """Tokens a second that this machine trains of a model, on documents like the demo's."""
    from modernbert.cli.plan import phases_of, trial_of
    from modernbert.settings import parse
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe
    from modernbert.tasks.pretraining.trial import try_training

    any_choice = DemoChoice(
        model=model, total_tokens=model.most_tokens, tokens_per_second=1.0, seconds=1.0
    )
    numbers = tomllib.loads(_recipe_text(folder, any_choice))
    recipe = parse(PretrainingRecipe, numbers, where=str(folder.recipe))
    *_, phase = phases_of(recipe, preset=None, mean_document_tokens=None)
    trial = try_training(trial_of(phase))
    return trial.flops_per_second / phase.training_flops_per_token()


def _recipe_text(folder: DemoFolder, choice: DemoChoice) -> str:
    """`demo.toml` with the paths of a demo and what was chosen for this machine."""
    template = Template((files("modernbert.cli") / "demo.toml").read_text(encoding="utf-8"))
    paths = {
        name: json.dumps(str(getattr(folder, name)), ensure_ascii=False)
        for name in ("train_shards", "held_out_shards", "tokenizer", "run")
    }
    return template.substitute(paths | choice.as_recipe())


def _stage(number: int, name: str, result: str) -> None:
    tell(f"[{number}/4] {name:<12} {result}")
