"""`modernbert evaluate`: fine-tunes on the tasks of a suite; `modernbert score`: scores a model."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.finetune import TuningWatch
from modernbert.cli.inference import Model, PrecisionOption, look_at, speed_of, warnings_told
from modernbert.cli.options import AsJson, argument, echo_json, refuse_unused, takes_settings
from modernbert.cli.terminal import Meter, duration, tell
from modernbert.errors import InputError
from modernbert.evaluation.suite import ColumnSettings, EvaluateSettings

if TYPE_CHECKING:
    from modernbert.evaluation.rows import ScoredRows
    from modernbert.evaluation.run import TaskResult
    from modernbert.evaluation.suite import TaskSettings


_SETTINGS = EvaluateSettings()
_ROWS = ("text", "text_pair", "label", "label_separator")


@takes_settings
def evaluate(
    model: Model,
    suite: Annotated[
        str,
        argument(
            "DATA",
            "A BEIR folder; rows as `finetune` reads them, for a model that is fine-tuned; or "
            "a suite: a .toml file, or one of glue, entities, answers, nfcorpus and long.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results.", show_default="runs/DATA"),
    ] = None,
    settings: EvaluateSettings = _SETTINGS,
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a model on a folder, a file or a suite of tasks.

    A fine-tuned model is scored on labelled rows without further training. A retrieval model is
    scored on a BEIR folder, and compared with BM25 if the extra `search` is installed. For the
    tasks of a suite the model is fine-tuned first. A table goes to stdout, and all results of a
    suite or a folder to results.json in the output folder. You can stop it at any moment: the same
    command continues where it stopped.
    """
    from modernbert.data.judged_texts import is_judged_folder
    from modernbert.evaluation.suite import read_suite, suite_of_folder

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("evaluate runs in one process: start it without torchrun")
    look_at(model)
    path, is_folder = Path(suite), is_judged_folder(Path(suite))
    if path.exists() and path.suffix != ".toml" and not is_folder:
        refuse_unused(settings, _ROWS, "rows")
        if output is not None:
            raise InputError("--output: has no effect on rows; `score` writes a page of them")
        columns = {name: getattr(settings, name) for name in _ROWS if getattr(settings, name)}
        _show_scores(model, suite, columns, as_json=as_json)
        return
    if is_folder:
        refuse_unused(settings, ("split",), "a folder of queries and documents")
        chosen, place = suite_of_folder(path, settings.split), Path()
    else:
        refuse_unused(settings, ("data", "tasks", "starts"), "a suite")
        chosen = read_suite(suite).only(settings.tasks)
        place = path.parent if settings.data is None else settings.data
    folder = output or Path("runs") / path.resolve().stem
    from modernbert.evaluation.run import RESULTS_FILE, run_suite
    from modernbert.training.interruption import Interrupted

    with Meter("evaluating") as meter, warnings_told():
        try:
            results = run_suite(
                chosen,
                model,
                folder,
                data=place,
                starts=_starts(settings.starts),
                precision=precision,
                watcher=_Watcher(meter),
            )
        except Interrupted as stopped:
            tell("stopped, everything is saved; run the same command again to continue")
            raise typer.Exit(stopped.exit_code) from None
    if as_json:
        echo_json(results)
        return
    typer.echo("\n".join(_table(results)))
    tell(f"{folder / RESULTS_FILE}: written")


def _show_scores(model: str, source: str, columns: dict[str, Any], *, as_json: bool) -> None:
    """Score a fine-tuned model on rows, as it is."""
    from modernbert.evaluation.rows import score_rows

    found = score_rows(model, source, columns)
    if as_json:
        echo_json(found.to_mapping())
        return
    tell(f"{found.job.verb}: {found.job.splits['dev']}")
    for name, value in found.scores.items():
        typer.echo(f"{name:<18}  {value:.4f}")


class _Watcher:
    """Shows what is going on."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._watch = TuningWatch(meter, num_runs=1)
        self.embedded = speed_of(meter)

    def begins(self, task: "TaskSettings") -> None:
        self._meter.restart(task.name)
        self._watch = TuningWatch(self._meter, num_runs=task.seeds)
        self.embedded = speed_of(self._meter)

    def record(self, run: str, record: Mapping[str, Any]) -> None:
        self._watch(run, record)

    def ends(self, result: "TaskResult") -> None:
        tell(f"{result.name}: {result.metric} {result.score:.4f}, {duration(result.seconds)}")


def _starts(given: Iterable[str]) -> dict[str, str]:
    starts = {}
    for each in given:
        task, _, model = each.partition("=")
        if not task or not model:
            raise InputError(f"--start: got {each!r}, expected TASK=MODEL")
        starts[task] = model
    return starts


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    width = max(len("average"), *(len(task["name"]) for task in results["tasks"]))
    for task in results["tasks"]:
        spread = f" ± {task['spread']:.4f}" if task["spread"] else ""
        start = f"  from {task['start']}" if task["start"] else ""
        score = f"{task['score']:.4f}{spread}"
        floor = f"  BM25 {task['bm25'][task['metric']]:.4f}" if task["bm25"] else ""
        yield f"{task['name']:<{width}}  {task['metric']:<10}  {score}{floor}{start}"
    yield f"{'average':<{width}}  {'':<10}  {results['average']:.4f}"


_COLUMNS = ColumnSettings()


@takes_settings
def score(
    model: Model,
    rows: Annotated[
        str,
        argument("ROWS", "Labelled rows, in a form that the model's verb of `finetune` reads."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the page.", show_default="runs/score-ROWS"),
    ] = None,
    columns: ColumnSettings = _COLUMNS,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fit a temperature to these rows, and a threshold for each label if a text may "
            "have several, and store them in the model's config.json.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a finished model on labelled rows.

    The scores go to stdout. The page shows them with the figures of each label, how far confidence
    can be trusted, and the worst mistakes. Calibrate with rows on which the model was not trained.
    """
    look_at(model)
    given = {name: value for name, value in vars(columns).items() if value}
    with Meter("scoring"), warnings_told():
        from modernbert.evaluation.rows import score_rows

        found = score_rows(model, rows, given, calibrate=calibrate)
        folder = output or Path("runs") / f"score-{Path(rows).name.split('.')[0]}"
        page = found.write(folder)
    if as_json:
        echo_json({**found.to_mapping(), "page": str(page)})
        return
    tell(f"{found.job.verb}: {found.job.splits['dev']}")
    typer.echo("\n".join(_lines(found)))
    tell(f"{page}: written")


def _lines(found: "ScoredRows") -> Iterator[str]:
    for name, value in found.scores.items():
        yield f"{name:<18}  {value:.4f}"
    if found.calibration is not None:
        yield f"{'temperature':<18}  {found.calibration.temperature:.4f}"
        labels = [each.label for each in found.review.labels]
        for label, threshold in zip(labels, found.calibration.thresholds or (), strict=False):
            yield f"threshold of {label}  {threshold:.4f}"
