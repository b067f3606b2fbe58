"""The page of a ranking's training: scores, curves, and the queries that it is most wrong on."""

from pathlib import Path

from modernbert.report.page import Html, section, table
from modernbert.tasks.ranking.job import RankingJob
from modernbert.tasks.tuning.page import shown, write_run_report
from modernbert.tasks.tuning.results import Results

_QUERIES = 25
_CHARACTERS = 300


def write_ranking_report(job: RankingJob, results: Results, best: Path, path: Path) -> None:
    """Write the page.

    best: the folder of the best model; it ranks the documents of `dev`, or of `test`, once more.

    Raises:
        RunError: it cannot be written.
    """
    write_run_report(
        path,
        job.recipe,
        results,
        best,
        examples=len(job.task.data.examples),
        epoch_tokens=job.task.epochs.num_tokens,
        review=_wrong_queries(job, results, best),
    )


def _wrong_queries(job: RankingJob, results: Results, best: Path) -> list[Html]:
    """The worst queries; nothing without held-out ones, or where all answers stand first."""
    data, metric = job.recipe.data, job.recipe.training.metric
    task = job.task if data.dev is not None else job.test
    if task is None:
        return []
    with job.reading(results.best.seed, best) as module:
        rankings = task.rankings(module)
    wrong = [] if rankings is None else rankings.wrong(metric)
    if not wrong:
        return []
    rows = [
        [
            shown(each.query, _CHARACTERS),
            f"{each.score:.3f}",
            shown(each.answer, _CHARACTERS),
            "not found" if each.place is None else each.place,
            shown(each.instead, _CHARACTERS),
        ]
        for each in wrong[:_QUERIES]
    ]
    header = ["query", metric, "answer", "place of the first answer", "first that is no answer"]
    note = f"The {len(rows)} worst of {len(wrong):,} on {data.dev or data.test}."
    return [section("Where it is most wrong", table(header, rows), note=note)]
