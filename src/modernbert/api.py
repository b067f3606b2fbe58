"""The verbs of the command line as functions: plain arguments, progress, and results that print.

Progress is shown on a terminal and in a notebook, or as `progress` says. Every function can be
stopped, with Ctrl-C or the stop button of a notebook; the same call goes on.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modernbert.cli.finetune import TuningWatch, tell_of_job
from modernbert.cli.prepare import corpus_tokenizer, show_progress
from modernbert.cli.pretrain import PretrainingWatch
from modernbert.cli.recipe import find_recipe
from modernbert.cli.terminal import Meter
from modernbert.display import Shown, Table, in_notebook, scores_table
from modernbert.errors import InputError
from modernbert.reading import user_path

if TYPE_CHECKING:
    from modernbert.data.prepare import PrepareResult
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe
    from modernbert.tasks.tuning.job import Results, TuningJob
    from modernbert.tasks.tuning.recipe import TuningRecipe
    from modernbert.tasks.tuning.sweep import RunObserver
    from modernbert.tokenizer.tokenizer import Tokenizer
    from modernbert.training.log import Observer, Record

Paths = Sequence[Path | str] | Path | str


def train_tokenizer(
    corpus: Any,
    output: Path | str | None = None,
    *,
    vocab_size: int = 50_368,
    text_field: str = "text",
    progress: bool | None = None,
) -> "Tokenizer":
    """Train a tokenizer in ModernBERT's form.

    Args:
        corpus: A file or folder, a list of them, or rows: a data frame, a table, a dictionary of
            columns or a list of dictionaries.
        output: The folder to write it to; none to only return it.
        vocab_size: The size of the vocabulary, rounded up to a multiple of 64.
        text_field: The field or column of the texts.
        progress: Whether to show the progress; by default on a terminal and in a notebook.

    Returns:
        The tokenizer.

    Raises:
        ModernBertError: The corpus cannot be read or has no text.
    """
    from modernbert.data.documents import DocumentReader
    from modernbert.tokenizer.train import train

    with TemporaryDirectory() as folder, _meter("reading", progress) as meter:
        files = _corpus_files(corpus, Path(folder) / "corpus.jsonl")
        texts = _told(DocumentReader(files, text_field=text_field), meter)
        tokenizer = train(texts, vocab_size=vocab_size)
    if output is not None:
        tokenizer.save_pretrained(output)
    return tokenizer


def extend_tokenizer(
    tokenizer: "Tokenizer | Path | str", tokens: Sequence[str], output: Path | str | None = None
) -> "Tokenizer":
    """Add tokens in the unused slots of a vocabulary, which keeps its size.

    The model needs no change. Pretrain it further with the new tokenizer to learn the new tokens.

    Args:
        tokenizer: A tokenizer, which is not changed, or its folder or hub id, also a model's.
        tokens: The names of the new tokens.
        output: The folder to write it to; none to only return it.

    Returns:
        The extended tokenizer.

    Raises:
        TokenizerError: There is no such tokenizer, a name is empty or already a token, or there are
            too few unused slots.
    """
    from modernbert.tokenizer.tokenizer import Tokenizer
    from modernbert.tokenizer.train import extend

    given = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_pretrained(tokenizer)
    extended = extend(given, tokens)
    if output is not None:
        extended.save_pretrained(output)
    return extended


def prepare(
    corpus: Any,
    output: Path | str,
    tokenizer: Path | str,
    *,
    workers: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> "PrepareResult":
    """Make token shards of a corpus; a call that was stopped is continued by the same call.

    Args:
        corpus: As in `train_tokenizer`. Rows are written to `OUTPUT.jsonl`, where a later call
            finds them.
        output: The folder of the shards; those of held-out documents are in `held-out` within.
        tokenizer: The folder of a tokenizer, or its id on the hub.
        workers: Processes; as many as are useful by default.
        progress: As in `train_tokenizer`.
        **settings: The fields of `PrepareSettings`, such as `held_out=0.01`.

    Returns:
        The shards, and what could not be read.

    Raises:
        ModernBertError: Something that was named cannot be used.
    """
    from modernbert.data import prepare as preparation
    from modernbert.data.settings import PrepareSettings
    from modernbert.settings import parse

    files = _corpus_files(corpus, user_path(f"{output}.jsonl"))
    with _meter("tokenizing", progress) as meter:
        observer = None if meter is None else partial(show_progress, meter)
        return preparation.prepare(
            files,
            output,
            corpus_tokenizer(tokenizer),
            settings=parse(PrepareSettings, settings, where="prepare"),
            workers=workers,
            on_progress=observer,
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class PretrainingResult(Shown):
    """How a pretraining ended.

    Attributes:
        status: `finished`, or `already_finished` by an earlier call.
        steps: All steps of the run.
        tokens: The tokens that were seen.
        evaluation: The last figures on held-out documents.
        model: The folder of the model.
        report: The page of the run.
    """

    status: str
    steps: int
    tokens: int
    evaluation: Mapping[str, float]
    model: Path
    report: Path

    def table(self) -> Table:
        """Return the numbers of the run in a row."""
        figures = {"steps": self.steps, "tokens": self.tokens, **self.evaluation}
        notes = [f"model: {self.model}", f"report: {self.report}"]
        return Table(("status", *figures), [[self.status, *figures.values()]], notes)


def pretrain(
    recipe: "PretrainingRecipe | Mapping[str, Any] | Path | str | None" = None,
    *,
    shards: Paths | Mapping[str, float] | None = None,
    held_out: Path | str | None = None,
    observers: "Sequence[Observer]" = (),
    progress: bool | None = None,
    **options: Any,
) -> PretrainingResult:
    """Pretrain a model, from wherever an earlier call has left off.

    Args:
        recipe: A recipe: its file, a name of `modernbert recipe list`, or a mapping.
        shards: The folder of shards to train on, several, or their weights by folder.
        held_out: The shards to evaluate on.
        observers: Called with each record of the run, in process 0.
        progress: As in `train_tokenizer`.
        **options: Settings of the recipe by name, such as `total_tokens=1e9` or
            `training={"seed": 1}`, in place of its own.

    Returns:
        How the run ended, and where the model is.

    Raises:
        Interrupted: A signal stopped it, a kind of KeyboardInterrupt; the same call goes on.
        ModernBertError: Something in the recipe, or in what it names, cannot be used.
    """
    from modernbert.tasks.pretraining.pretrain import MODEL_FOLDER
    from modernbert.tasks.pretraining.pretrain import pretrain as run
    from modernbert.tasks.pretraining.recipe import read_recipe
    from modernbert.training.interruption import Interrupted
    from modernbert.training.log import read_evaluations
    from modernbert.training.trainer import METRICS_FILE

    given = find_recipe(Path(recipe)) if isinstance(recipe, Path | str) else recipe or {}
    evaluation = {} if held_out is None else {"evaluation.shards": str(held_out)}
    settings = read_recipe(given, {**_sources(shards), **evaluation, **options})
    with _meter("pretraining", progress) as meter:
        watches = [] if meter is None else [PretrainingWatch(meter)]
        result = run(settings, [*watches, *observers])
    if result.status == "interrupted":
        raise Interrupted(result.exit_code)
    evaluations = read_evaluations(settings.output / METRICS_FILE)
    last = evaluations[-1][1] if evaluations else {}
    return PretrainingResult(
        status=result.status,
        steps=result.progress.step,
        tokens=result.progress.tokens,
        evaluation=result.evaluation or last,
        model=settings.output / MODEL_FOLDER,
        report=settings.output / "report.html",
    )


def finetune(
    verb: str,
    recipe: "TuningRecipe | Mapping[str, Any] | Path | str | None" = None,
    *,
    on_job: "Any" = None,
    on_record: "RunObserver | None" = None,
    progress: bool | None = None,
    **options: Any,
) -> "Results":
    """Fine-tune a model, from wherever an earlier call has left off.

    Args:
        verb: What to learn: `classify`, `regress`, `tag`, `answer`, `retrieve`,
            `late-interaction`, `sparse` or `rerank`.
        recipe: A recipe: its file, a mapping, or an object; none if the options say everything.
        on_job: Told what was read, before the training, in process 0.
        on_record: Told each record of each run, by the name of the run, in process 0.
        progress: As in `train_tokenizer`.
        **options: Settings of the recipe by name: `model`, `output`, `train`, `dev`, `test`,
            `epochs`, `learning_rate` and all others, which are the options of the command line.
            `train`, `dev` and `test` may be data frames, tables, data sets, dictionaries of columns
            or lists of dictionaries. A list of epochs, learning rates or weight decays, or a number
            of `seeds`, makes a sweep.

    Returns:
        The scores of all runs; the best model is in the folder `model` of the output.

    Raises:
        Interrupted: A signal stopped it, a kind of KeyboardInterrupt; the same call goes on.
        ModernBertError: Something in the recipe, or in what it names, cannot be used.
    """
    from modernbert.tasks.finetune import finetune as run
    from modernbert.tasks.finetune import read_recipe

    settings = read_recipe(verb, recipe, {k: _folder_of(v) for k, v in options.items()})
    with _meter("reading", progress) as meter:
        watch = None if meter is None else TuningWatch(meter, num_runs=len(settings.runs()))

        def told_of_job(job: "TuningJob") -> None:
            for each in (tell_of_job if watch else None, on_job):
                if each is not None:
                    each(job)

        def told_of_record(name: str, record: "Record") -> None:
            for each in (watch, on_record):
                if each is not None:
                    each(name, record)

        return run(verb, settings, on_job=told_of_job, on_record=told_of_record)


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(Shown):
    """The scores of a model.

    Attributes:
        scores: By the name of each task, or of the verb whose rows were scored.
        details: Everything, as JSON values.
    """

    model: str
    scores: Mapping[str, Mapping[str, float]]
    details: Mapping[str, Any]

    def table(self) -> Table:
        """Return a row for each task."""
        average = self.details.get("average")
        notes = [] if average is None else [f"average: {average:.4f}"]
        return scores_table(self.scores, "task", [*notes, f"model: {self.model}"])


def evaluate(
    model: Any,
    data: Any,
    *,
    output: Path | str | None = None,
    tasks: Sequence[str] = (),
    split: str = "test",
    folder: Path | str | None = None,
    precision: Any = "auto",
    **columns: Any,
) -> Evaluation:
    """Score a model on rows, a BEIR folder or a suite of tasks.

    Args:
        model: A folder or hub id, or the result of `pretrain` or `finetune`.
        data: Rows as `finetune` reads them, also objects such as data frames, for a model that is
            fine-tuned; a BEIR folder; or a suite, a .toml file or the name of one that comes with
            the package.
        output: The folder for the results of a folder or suite; `runs/DATA` by default.
        tasks: Which tasks of a suite to run; all by default.
        split: The split of a BEIR folder.
        folder: The folder to which the paths in a suite are relative; the suite's by default.
        precision: What a retriever computes in.
        **columns: Which columns rows have: `text`, `text_pair` and `label`.

    Returns:
        The scores.

    Raises:
        Interrupted: A signal stopped it, a kind of KeyboardInterrupt; the same call goes on.
        ModernBertError: The model or the data cannot be used.
    """
    from modernbert.data.judged_texts import is_judged_folder
    from modernbert.evaluation.run import run_suite
    from modernbert.evaluation.suite import read_suite, suite_of_folder

    name = str(_folder_of(model))
    if not isinstance(data, Path | str):
        with TemporaryDirectory() as temporary:
            (file,) = _corpus_files(data, Path(temporary) / "rows.jsonl")
            return _row_scores(name, str(file), columns)
    path = user_path(data)
    is_folder = is_judged_folder(path)
    if path.exists() and path.suffix != ".toml" and not is_folder:
        return _row_scores(name, str(data), columns)
    if columns:
        raise InputError(f"{next(iter(columns))}: is for rows, but {data} is a suite or a folder")
    suite = suite_of_folder(path, split) if is_folder else read_suite(str(data)).only(list(tasks))
    place = Path() if is_folder else path.parent if folder is None else user_path(folder)
    target = Path("runs") / path.resolve().stem if output is None else user_path(output)
    results = run_suite(suite, name, target, data=place, precision=precision)
    scores = {task["name"]: task["scores"] for task in results["tasks"]}
    return Evaluation(model=name, scores=scores, details=results)


def _row_scores(model: str, source: str, columns: Mapping[str, Any]) -> Evaluation:
    from modernbert.evaluation.rows import score_rows

    listed = {k: [v] if k == "label" and isinstance(v, str) else v for k, v in columns.items()}
    found = score_rows(model, source, listed).to_mapping()
    return Evaluation(model=model, scores={found["verb"]: found["scores"]}, details=found)


@contextmanager
def _meter(title: str, progress: bool | None) -> Iterator[Meter | None]:
    """A meter where progress is shown."""
    if progress is None:
        progress = in_notebook() or sys.stderr.isatty()
    if not progress:
        yield None
        return
    with Meter(title) as meter:
        yield meter


def _told(reader: Any, meter: Meter | None) -> Iterator[str]:
    """The texts of documents, with their number on a meter."""
    for number, document in enumerate(reader, start=1):
        if meter is not None:
            meter.update(number, None, f"{number:,} documents")
        yield document.text


def _corpus_files(corpus: Any, path: Path) -> list[Path | str]:
    """Files as they are named, or the file to which rows are written."""
    if isinstance(corpus, Path | str):
        return [corpus]
    if isinstance(corpus, list | tuple) and all(isinstance(each, Path | str) for each in corpus):
        return list(corpus)
    from modernbert.data.rows.tables import write_rows

    write_rows(corpus, path)
    return [path]


def _folder_of(model: Any) -> Any:
    """The folder of the model of a result; anything else as it is."""
    return getattr(model, "model", model) if isinstance(model, Shown) else model


def _sources(shards: Any) -> dict[str, Any]:
    if shards is None:
        return {}
    if isinstance(shards, Mapping):
        weighted = [{"shards": str(each), "weight": float(w)} for each, w in shards.items()]
        return {"sources": weighted}
    listed = [shards] if isinstance(shards, Path | str) else shards
    return {"sources": [{"shards": str(each)} for each in listed]}
