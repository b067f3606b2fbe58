"""`modernbert report`: writes the page and the plots of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a run, which holds metrics.jsonl.",
            show_default=False,
        ),
    ],
) -> None:
    """Write the page and the plots of a run into its folder.

    A run writes them itself, while it trains and at its end. This command writes them again from
    the log, for example after a run was killed. The path of the page goes to stdout.
    """
    write(run)
    typer.echo(run / "report.html")


def write(run: Path, baseline: float | None = None) -> None:
    """Write the report of a run.

    Args:
        run: The run's folder.
        baseline: A loss to compare with, such as the unigram distribution's.
    """
    from modernbert.report.run_report import write_report

    write_report(run, baseline=baseline)
