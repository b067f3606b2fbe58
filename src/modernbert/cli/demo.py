"""`modernbert demo`: trains a tiny model in minutes, from texts that every machine has.

Each stage leaves its result in the output folder and is passed over when that is there, so that a
demo that was stopped goes on where it was. The numbers of the training are in `demo.toml`, apart
from those that depend on the speed of the machine: `demo_budget` chooses them once.
"""

import json
import os
import shlex
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from modernbert.cli import pretrain
from modernbert.cli.demo_budget import (
    MODELS,
    TOTAL_SECONDS,
    DemoChoice,
    DemoModel,
    choose,
    fitting_threads,
)
from modernbert.cli.demo_results import report_results
from modernbert.cli.prepare import prepare_shards
from modernbert.cli.terminal import counted, duration, short_count, tell
from modernbert.cli.tokenizer import train_on

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
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The folder for everything that the demo makes.", show_default=False
        ),
    ],
) -> None:
    """Train a tiny model from the texts of this Python installation.

    The demo collects code, docstrings and manual, trains a tokenizer, writes shards and pretrains.
    It measures how fast this machine trains and chooses the number of tokens so that all of it
    takes about four minutes; on a slow or busy machine it trains a smaller model. No network is
    needed. If you stop it, the same command continues where it was.
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
    from modernbert.cli.plan_recipe import phases_of, trial_of
    from modernbert.settings import parse
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe
    from modernbert.tasks.pretraining.trial import try_training

    any_choice = DemoChoice(
        model=model, total_tokens=model.most_tokens, tokens_per_second=1.0, seconds=1.0
    )
    numbers = tomllib.loads(_recipe_text(folder, any_choice))
    recipe = parse(PretrainingRecipe, numbers, where=str(folder.recipe))
    (phase,) = phases_of(recipe, preset=None, mean_document_tokens=None)
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
