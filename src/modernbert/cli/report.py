"""`modernbert report`: writes the page and the plots of a run."""

from pathlib import Path
from typing import Annotated

import typer

from modernbert.errors import RunError
from modernbert.extras import import_extra


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a pretraining or a fine-tuning run.",
            show_default=False,
        ),
    ],
) -> None:
    """Write the page and the plots of a run into its folder.

    A pretraining run writes them itself, while it trains and at its end. This command writes them
    again from the log, for example after a run was killed. The page of a fine-tuning run is written
    once, at its end, as it shows the mistakes of the best model. The path of the page goes to
    stdout.
    """
    import_extra("matplotlib")
    page = run / "report.html"
    if not (run / "runs").is_dir():  # which a fine-tuning run has
        write(run)
    elif not page.exists():
        raise RunError(
            f"{run}: this fine-tuning run has not ended, and its page is written at the end; "
            "repeat the command that began it"
        )
    typer.echo(page)


def write(run: Path, baseline: float | None = None) -> None:
    """Write the report of a run.

    Args:
        run: The run's folder.
        baseline: A loss to compare with, such as the unigram distribution's.
    """
    from modernbert.report.run_report import write_report

    write_report(run, baseline=baseline)
