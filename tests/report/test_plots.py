"""The plot of the losses: what is drawn, and that it is a picture."""

import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from tests.report.example_run import NUM_STEPS, write_run

from modernbert.errors import RunError
from modernbert.report.history import RunHistory
from modernbert.report.plots import plot_losses, plot_run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        {"kind": "step", "step": s, "tokens": 100 * s, "loss": 9.0 - 0.1 * s} for s in range(1, 41)
    ]
    rows += [{"kind": "evaluation", "step": 40, "tokens": 4000, "held_out_loss": 4.9}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of every figure that is saved."""
    saved: list[Axes] = []
    save = Figure.savefig

    def remember(figure: Figure, *arguments: object, **options: object) -> None:
        saved.extend(figure.axes)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


def test_a_png_of_a_readable_size(log: Path, tmp_path: Path) -> None:
    plot_losses(RunHistory.read(log), tmp_path / "loss.png", baseline=6.63)
    height, width, _ = imread(tmp_path / "loss.png").shape
    assert (width, height) == (1200, 720)


def test_every_line_is_named_and_inside(log: Path, tmp_path: Path, drawn: list[Axes]) -> None:
    plot_losses(RunHistory.read(log), tmp_path / "loss.png", baseline=9.5)
    (axes,) = drawn
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "training, 5.05 at the end",
        "held out, 4.90 at the end",
        "unigram baseline, 9.50",
    ]
    low, high = axes.get_ylim()
    assert low < 4.9 and high > 9.5
    assert axes.get_xlabel() and axes.get_ylabel()


def test_training_alone(log: Path, tmp_path: Path, drawn: list[Axes]) -> None:
    lines = log.read_text().splitlines()
    log.write_text(lines[0] + "\n")
    plot_losses(RunHistory.read(log), tmp_path / "loss.png")
    legend = drawn[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == 1


def test_a_picture_that_cannot_be_written_is_a_run_error(log: Path, tmp_path: Path) -> None:
    (tmp_path / "loss.png").mkdir()
    with pytest.raises(RunError, match=r"loss\.png: could not be written"):
        plot_losses(RunHistory.read(log), tmp_path / "loss.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_nothing_to_draw_is_a_run_error(tmp_path: Path) -> None:
    for plot in (plot_losses, plot_run):
        with pytest.raises(RunError, match="has no step yet"):
            plot(RunHistory(), tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_the_course_of_a_run(tmp_path: Path, drawn: list[Axes]) -> None:
    history = RunHistory.read(write_run(tmp_path))
    plot_run(history, tmp_path / "run.png")
    assert len(drawn) == 6
    for axes in drawn:
        curve, *borders = axes.get_lines()[::-1]
        assert len(curve.get_xdata()) == NUM_STEPS and len(borders) == 2
        assert axes.get_xlim() == (0, 1000 * NUM_STEPS)
