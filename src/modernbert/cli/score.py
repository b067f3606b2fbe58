"""`modernbert score`: scores a finished model on labelled rows, with a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import Model, look_at, warnings_told
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.cli.terminal import Meter, tell
from modernbert.evaluation.settings import ColumnSettings

if TYPE_CHECKING:
    from modernbert.evaluation.rows import ScoredRows


_COLUMNS = ColumnSettings()


@takes_settings
def score(
    model: Model,
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="Labelled rows, as the verb of `finetune` that made the model reads them.",
            show_default=False,
        ),
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
            help="Find a temperature by these rows, and a threshold for each label where a text "
            "may have several, and store them in the model's config.json.",
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
