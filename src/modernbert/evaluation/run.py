"""A suite from the first task to the table of its results.

The folder, `output`, holds

    TASK/result.json     what came of each task, which is not done again
    TASK/...             the fine-tuning of a task that is learnt
    results.json         everything together

Stopped at any moment, the same call goes on where it was.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modernbert.data.judged_texts import JudgedTexts, read_judged_texts
from modernbert.errors import InputError, RunError
from modernbert.evaluation.suite import Suite, TaskSettings
from modernbert.extras import is_installed
from modernbert.files import write_whole
from modernbert.inference.batching import Observer, Progress
from modernbert.inference.bm25 import Bm25, rank_by_words
from modernbert.inference.loading import folder_fingerprint
from modernbert.inference.retriever import Retriever, load_retriever, text_vectors
from modernbert.inference.similarity import rank_documents
from modernbert.json_files import read_settings
from modernbert.metrics.ranking import ranking_scores
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model
from modernbert.tasks.finetune import finetune
from modernbert.tasks.tuning.sweep import MODEL_FOLDER
from modernbert.training.log import Record

METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100")
_DEPTH = 100


def rank_judged(
    retriever: Retriever,
    judged: JudgedTexts,
    *,
    top_k: int = _DEPTH,
    on_progress: Observer | None = None,
) -> dict[str, dict[str, float]]:
    """Find the best documents of each query, with scores, by either kind of retriever.

    A document that is the query itself, by its id, is left out, as BEIR does.

    Args:
        retriever: An embedder of one vector per text, or of one per token.
        judged: The queries, documents and judgements.
        top_k: The number of results to return, best first.
        on_progress: Is told how far the documents are embedded.
    """
    queries = text_vectors(retriever, judged.queries.values(), "query")
    documents = text_vectors(
        retriever,
        judged.documents.values(),
        "document",
        on_progress=on_progress,
    )
    found = rank_documents([text for block in queries for text in block], documents, top_k + 1)
    return _named(judged, found, top_k)


def rank_judged_by_words(judged: JudgedTexts) -> dict[str, dict[str, float]]:
    """Rank documents as `rank_judged` does, by BM25 with the rules of English.

    Raises:
        MissingPackageError: bm25s or PyStemmer is not installed.
    """
    words = Bm25.build(judged.documents.values(), "english")
    return _named(judged, rank_by_words([words], judged.queries.values(), _DEPTH + 1), _DEPTH)


def _named(
    judged: JudgedTexts, found: Iterable[tuple[np.ndarray, np.ndarray]], top_k: int
) -> dict[str, dict[str, float]]:
    """Name the documents of each ranking, without the query itself."""
    names = list(judged.documents)
    rankings = {}
    for query, (scores, rows) in zip(judged.queries, found, strict=True):
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        kept = [(names[row], score) for row, score in pairs if names[row] != query]
        rankings[query] = dict(kept[:top_k])
    return rankings


def retrieval_scores(
    retriever: Retriever,
    judged: JudgedTexts,
    metrics: tuple[str, ...] = METRICS,
    *,
    on_progress: Observer | None = None,
) -> dict[str, float]:
    """Return the mean of each metric over all judged queries.

    Raises:
        InputError: An unknown metric, or no judgements.
    """
    depth = max([_DEPTH, *(int(m.partition("@")[2]) for m in metrics if m[-1:].isdigit())])
    found = rank_judged(retriever, judged, top_k=depth, on_progress=on_progress)
    rankings = {query: list(documents) for query, documents in found.items()}
    return ranking_scores(rankings, judged.judgements, metrics)


RESULT_FILE = "result.json"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What came of a task.

    Attributes:
        score: Of its metric, the mean over the seeds.
        spread: Its standard deviation over the seeds; 0 for one.
        scores: All metrics, of the split that is named.
        start: The task whose model it began with; empty for the model itself.
        bm25: All metrics of BM25 on the same texts, for retrieval without training: the floor that
            a model should be above. Empty where bm25s is not installed.
    """

    name: str
    kind: str
    metric: str
    score: float
    spread: float
    split: str
    scores: Mapping[str, float]
    start: str
    seconds: float
    bm25: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _StoredResult:
    identity: Mapping[str, Any]
    result: TaskResult


class Watcher(Protocol):
    """Hears what is going on."""

    def begins(self, task: TaskSettings) -> None:
        """Be told that a task begins."""

    def record(self, run: str, record: Record) -> None:
        """Take a record of a fine-tuning."""

    def embedded(self, progress: Progress) -> None:
        """Be told how far documents are embedded."""

    def ends(self, result: TaskResult) -> None:
        """Be told that a task is done, now or before."""


class Nobody:
    """Hears nothing."""

    def begins(self, task: TaskSettings) -> None:
        """Nothing."""

    def record(self, run: str, record: Record) -> None:
        """Nothing."""

    def embedded(self, progress: Progress) -> None:
        """Nothing."""

    def ends(self, result: TaskResult) -> None:
        """Nothing."""


def run_suite(
    suite: Suite,
    model: str,
    output: Path,
    *,
    data: Path,
    starts: Mapping[str, str] | None = None,
    precision: PrecisionChoice = "auto",
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Evaluate a model on all tasks of a suite; returns the results as JSON values.

    Args:
        suite: The tasks, as `read_suite` gives them.
        model: A folder, or an id on the hub.
        output: The folder to write to.
        data: The folder that the suite's paths are relative to.
        starts: For tasks that are not in the suite, folders of models that were fine-tuned on them.
        precision: Of embedding; trainings have their own.
        watcher: Told about the progress.

    Raises:
        ModernBertError: The model, or the data of a task, cannot be used.
        Interrupted: A signal came; the same call goes on.
    """
    watch = watcher or Nobody()
    fingerprint = folder_fingerprint(find_model(model, weights=True))
    models = dict(starts or {})
    results = []
    for task in suite.in_order():
        watch.begins(task)
        start = task.start_from if task.start_from in models else ""
        identity = {"model": fingerprint, "start": start, "task": task.identity}
        folder = output / task.name
        result = _read_result(folder, identity)
        if result is None:
            began = time.monotonic()
            if not task.is_learnt:
                fields = _retrieve(task, model, data, precision, watch)
            else:
                begin = models[start] if start else model
                fields = _fine_tune(task, begin, folder, data, watch)
            seconds = time.monotonic() - began
            result = TaskResult(
                name=task.name,
                kind=task.kind,
                metric=task.metric,
                start=start or "",
                seconds=seconds,
                **fields,
            )
            _write(folder / RESULT_FILE, {"identity": identity, "result": asdict(result)})
        if task.is_learnt:
            models[task.name] = str(folder / MODEL_FOLDER)
        watch.ends(result)
        results.append(result)
    summary = {
        "suite": suite.name,
        "model": model,
        "model_fingerprint": fingerprint,
        "average": sum(each.score for each in results) / len(results),
        "tasks": [asdict(each) for each in results],
    }
    _write(output / RESULTS_FILE, summary)
    return summary


def _retrieve(
    task: TaskSettings, model: str, data: Path, precision: PrecisionChoice, watch: Watcher
) -> dict[str, Any]:
    assert task.data is not None
    judged = read_judged_texts(data / task.data, task.split)
    metrics = tuple(dict.fromkeys((task.metric, *METRICS)))
    retriever = load_retriever(model, precision)
    scores = retrieval_scores(retriever, judged, metrics, on_progress=watch.embedded)
    floor = {}
    if is_installed("bm25s") and is_installed("Stemmer"):
        rankings = {query: list(found) for query, found in rank_judged_by_words(judged).items()}
        floor = ranking_scores(rankings, judged.judgements, metrics)
    return {
        "score": scores[task.metric],
        "spread": 0.0,
        "split": task.split,
        "scores": scores,
        "bm25": floor,
    }


def _fine_tune(
    task: TaskSettings, model: str, folder: Path, data: Path, watch: Watcher
) -> dict[str, Any]:
    recipe = task.recipe(model, folder, data)
    results = finetune(task.kind, recipe, on_record=watch.record)
    split = "test" if task.test is not None else "dev"
    scores = results.best_combination.mean(split)
    if task.metric not in scores:
        raise InputError(
            f"task {task.name!r}: metric: got {task.metric!r}, expected one of "
            f"{', '.join(sorted(scores))}"
        )
    return {
        "score": scores[task.metric],
        "spread": results.best_combination.spread(split)[task.metric],
        "split": split,
        "scores": scores,
    }


def _read_result(folder: Path, identity: Mapping[str, Any]) -> TaskResult | None:
    """The result of an earlier start, when it is of the same model and task."""
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    try:
        stored = read_settings(_StoredResult, path, error=RunError)
    except RunError as error:
        raise RunError(f"{error}; delete it, as it is not the result of a task") from None
    before, result = stored.identity, stored.result
    if _differ(before, json.loads(json.dumps(identity))):
        raise RunError(
            f"{path}: belongs to another model or task; choose another --output, or delete it"
        )
    return result


def _differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a result is of something else; earlier versions stored more of untrained tasks."""
    stored = dict(before)
    if "data" in now["task"]:
        stored["task"] = {name: stored["task"].get(name) for name in now["task"]}
    return stored != now


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
