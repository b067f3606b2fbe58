"""What a demo has to show at its end: figures beside a baseline, and examples."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from modernbert.cli.predict import predictions_line
from modernbert.cli.terminal import counted, duration, short_count
from modernbert.extras import is_installed, missing

if TYPE_CHECKING:
    from modernbert.inference.fill_mask import FillMask
    from modernbert.report.history import Baseline, RunHistory
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe

EXAMPLES = (
    "for index, value in [MASK](values):",
    "def __init__([MASK], name, value=None):",
    "if value is not [MASK]: return value",
    "Return True [MASK] the string is empty, False otherwise.",
    "This method raises a [MASK] if the key is not found.",
)
_SHOWN = 3


def report_results(recipe: "PretrainingRecipe", recipe_path: Path) -> None:
    """Say how good the model has become, what it fills in, and where everything is."""
    from modernbert.report.history import METRICS_FILE, RunHistory
    from modernbert.report.run_report import write_report

    baseline = held_out_baseline(recipe)
    write_report(recipe.output, baseline=baseline.loss)
    history = RunHistory.read(recipe.output / METRICS_FILE)
    typer.echo("\n".join(figures(history.of_kind("evaluation"), baseline)))
    typer.echo("\n".join(_given(history)))
    typer.echo("\n".join(examples(recipe)))
    typer.echo("\n".join(_places(recipe.output, recipe_path)))


def held_out_baseline(recipe: "PretrainingRecipe") -> "Baseline":
    """Return the unigram distribution of the training shards on the held-out masked tokens."""
    import numpy as np

    from modernbert.data.shards import ShardFolder
    from modernbert.report.history import count_tokens, unigram_baseline
    from modernbert.tasks.pretraining.pretrain import held_out_batches

    last = len(recipe.phases) - 1
    folders = [ShardFolder.open(source.shards) for source in recipe.phases[last].sources]
    counts = count_tokens(
        (shard.tokens for folder in folders for shard in folder.shards), folders[0].vocab_size
    )
    targets = np.concatenate([batch.labels.numpy() for batch in held_out_batches(recipe, last)])
    return unigram_baseline(counts, targets)


def figures(evaluations: list[Mapping[str, Any]], baseline: "Baseline") -> Iterator[str]:
    """Yield a table of loss and accuracy on held-out masked tokens, without and with training."""
    yield ""
    yield f"{'masked tokens of held-out files':<36}{'loss':>6}{'accuracy':>11}"
    rows = [
        ("always by frequency alone (unigram)", baseline.loss, baseline.accuracy),
        *(
            (name, row["held_out_loss"], row["held_out_accuracy"])
            for name, row in (
                ("the model before training", evaluations[0]),
                ("the model after training", evaluations[-1]),
            )
        ),
    ]
    for name, loss, accuracy in rows:
        yield f"{name:<36}{loss:>6.2f}{accuracy:>11.1%}"


def examples(recipe: "PretrainingRecipe") -> Iterator[str]:
    """Yield what the model fills in for [MASK], before and after training."""
    from modernbert.inference.fill_mask import FillMask
    from modernbert.tasks.pretraining.pretrain import build_model
    from modernbert.tokenizer.tokenizer import Tokenizer

    untrained = FillMask(build_model(recipe), Tokenizer.from_pretrained(recipe.tokenizer))
    trained = FillMask.from_pretrained(recipe.output / "model")
    yield ""
    for text in EXAMPLES:
        yield text
        yield f"    before   {_first(untrained, text)}"
        yield f"    after    {_first(trained, text)}"


def _first(predict: "FillMask", text: str) -> str:
    (predictions,) = predict(text, _SHOWN)
    return predictions_line(predictions)


def _given(history: "RunHistory") -> Iterator[str]:
    """What the model was given: tokens, time and a machine, without which figures say little."""
    about, seconds = history.starts[0]["about"], history.column("seconds").sum()
    tokens = history.last_tokens
    yield ""
    yield (
        f"{short_count(tokens)} tokens in {duration(seconds)}, {tokens / seconds:,.0f} tokens/s; "
        f"{about['layers']}, computed in {about['computed_in']}"
    )
    yield f"on {about['device']}, {counted(about.get('threads', 1), 'thread')}"


def _places(run: Path, recipe: Path) -> Iterator[str]:
    model = shlex.quote(str(run / "model"))
    yield ""
    yield f"model   {run / 'model'}"
    yield f"report  {run / 'report.html'}"
    if not is_installed("matplotlib"):
        redraw = f"modernbert report {shlex.quote(str(run))}"
        yield f"charts  {missing('matplotlib')}; then: {redraw}"
    yield f"recipe  {recipe}"
    yield ""
    yield "Next:"
    yield f"  modernbert fill-mask {model} 'import [MASK]'"
    yield f"  modernbert info {model}"
    yield f"  modernbert pretrain {shlex.quote(str(recipe))}   after editing it: another `output`"
