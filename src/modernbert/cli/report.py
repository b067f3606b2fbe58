"""`modernbert report`: the page and the plots of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a run, with its metrics.jsonl.", show_default=False
        ),
    ],
) -> None:
    """Write a run's page, report.html, and its plots into its folder.

    The path of the page goes to stdout. A run writes them itself while it goes on and at its end;
    this writes them anew from the log, for instance for a run that was killed.
    """
    write(run)
    typer.echo(run / "report.html")


def write(run: Path, baseline: float | None = None) -> None:
    """Write the report of a run.

    baseline: a loss to compare with, such as the unigram distribution's.
    """
    from modernbert.report.run_report import write_report

    write_report(run, baseline=baseline)
