"""The page of a run tells what the log says, and no less than it says."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.report.example_run import EVIL, NUM_STEPS, rows
from tests.report.html_tree import Node, parse

from modernbert.kinds import MODEL_KINDS
from modernbert.report.charts import LineChart
from modernbert.report.history import RunHistory
from modernbert.report.page import commands_of, go_on
from modernbert.report.run_charts import phase_accounts, phase_spans, ratio, run_charts, usual_curve
from modernbert.report.run_report import run_page


def history_of(given: Iterable[dict[str, Any]]) -> RunHistory:
    history = RunHistory()
    for row in given:
        history.add(row)
    return history


@pytest.fixture(scope="module")
def history() -> RunHistory:
    return history_of(rows())


@pytest.fixture(scope="module")
def root(history: RunHistory) -> Node:
    return parse(run_page(history, title=EVIL, recipe=f'output = "{EVIL}"', baseline=6.5))


def facts(root: Node) -> dict[str, str]:
    names, values = root.all("dt"), root.all("dd")
    return {n.text: v.text for n, v in zip(names, values, strict=True)}


def cells(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.children] for row in table.all("tr")]


def test_no_text_of_the_log_becomes_markup(root: Node) -> None:
    assert root.all("script") == []
    assert root.all("h1")[0].text == EVIL
    assert EVIL in root.all("pre")[0].text
    assert facts(root)["model"] == EVIL


def test_every_figure_has_its_chart(root: Node) -> None:
    assert [figure.all("b")[0].text for figure in root.all("figure")] == [
        "Loss",
        "Loss, closer",
        "Held-out accuracy",
        "Learning rate",
        "Batch size",
        "Masked tokens",
        "Gradient norm",
        "Speed",
        "Arithmetic",
        "Packing",
        "Waiting for data",
        "Memory",
        "Events",
    ]


def test_charts_have_units_names_and_borders(root: Node) -> None:
    first, *_, last = root.all("figure")
    legend = [entry.text for entry in first.all("span", "legend")[0].all("span")]
    assert legend == ["training, smoothed", "held out", "unigram baseline, 6.50"]
    assert first.all("span", "unit")[0].text == "nats per masked token"
    texts = [text.text.strip() for text in first.all("text")]
    assert {"tokens seen in training", "extension"} <= set(texts)
    names = {text.text for text in last.all("text")}
    assert {"phases", "evaluations", "checkpoints", "skipped steps", "spikes", "warnings"} <= names
    assert "resumed" not in names


def test_totals(root: Node) -> None:
    said = facts(root)
    assert said["tokens seen"] == "120k of 120k (99.6%)"
    assert said["steps"] == "120" and said["skipped steps"] == "1" and said["resumed"] == "never"
    assert said["held-out loss"] == "2.000" and said["held-out accuracy"] == "25%"
    assert said["tokens a second, all steps"] == "500" and said["left at this speed"] == "1 s"
    assert said["parameters"] == "149,655,232" and said["peak memory"] == "2.5 GB"
    assert said["matrix products, measured"] == "40 GFLOP/s"


def test_a_row_for_each_phase(root: Node) -> None:
    table = root.all("table")[0]
    assert cells(table)[1:] == [
        ["pretraining", "80k", "80", "4.000", "25%", "500", "2 min 40 s"],
        ["extension", "30k", "30", "2.500", "25%", "500", "1 min 0 s"],
        ["decay", "10k", "10", "2.000", "25%", "500", "20 s"],
    ]


def test_what_is_out_of_the_ordinary_is_told(root: Node) -> None:
    assert cells(root.all("table")[1])[1:] == [
        ["120", "averaged", "parts step 110 loss 2; step 120 loss 2"],
        ["120", "warning", f"{EVIL} set aside"],
        ["70", "spike", "4.0 where 2.0 is usual"],
        ["61", "skipped", "the loss is nan"],
    ]


def test_derived_figures(history: RunHistory) -> None:
    assert phase_spans(history) == [
        (0, 80_000, "pretraining"),
        (80_000, 110_000, "extension"),
        (110_000, 120_000, "decay"),
    ]
    share = ratio(history, "flops", "seconds", 1 / 4e10)
    assert share.values == pytest.approx([0.25] * 120)
    assert [account.num_steps for account in phase_accounts(history)] == [80, 30, 10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "not started yet"),
        ([{"kind": "start", "step": 0}], "under way when this page was written"),
        ([{"kind": "end", "step": 0, "status": "finished"}], "finished"),
    ],
)
def test_a_log_with_next_to_nothing(given: list[dict[str, Any]], said: str) -> None:
    root = parse(run_page(history_of(given), title="run"))
    assert root.all("header")[0].all("p")[0].text == said
    assert "No step has been taken yet." in root.text and root.all("figure") == []


def test_the_log_of_an_older_run_of_one_phase() -> None:
    old = ({k: v for k, v in row.items() if k in OLD} for row in rows())
    root = parse(run_page(history_of(old), title="run"))
    assert cells(root.all("table")[0])[1][:3] == ["the only one", "120k", "120"]
    assert not any(figure.all("line", "border") for figure in root.all("figure"))


OLD = ("kind", "step", "tokens", "loss", "held_out_loss")


def test_the_short_step_at_the_end_of_an_epoch_is_no_spike() -> None:
    steps = [
        {**row, "loss": 99.0, "num_tokens": 30} if row.get("step") == 40 else row
        for row in rows()
        if row["kind"] in ("start", "step")
    ]
    history = history_of(steps)
    curve = usual_curve(history, "loss")
    assert len(curve.values) == NUM_STEPS - 1 and curve.values.max() < 10
    assert usual_curve(history_of(steps[:2]), "loss").values.tolist() == [8.95]
    (sizes,) = (each for each in run_charts(history) if each.title == "Batch size")
    assert isinstance(sizes, LineChart) and min(sizes.series[0].y) == 1000


def test_a_growing_batch_is_shown_whole() -> None:
    steps = [
        {"kind": "step", "step": i, "tokens": 2**i, "num_tokens": 2**i, "loss": 1.0}
        for i in range(9)
    ]
    assert len(usual_curve(history_of(steps), "loss").values) == 9


def test_examples_are_marked_and_judged(history: RunHistory) -> None:
    right = {"before": EVIL, "after": ".", "expected": " a", "predicted": [[" a", 0.5], ["b", 0.2]]}
    wrong = {**right, "expected": "\n", "predicted": [["c", 0.75]]}
    root = parse(run_page(history, title="run", examples=[wrong, right], card="# card"))
    (listed,) = [table for table in root.all("table") if table.all("mark")]
    assert [row[1:] for row in cells(listed)[1:]] == [
        ["right: ' a' 50% · 'b' 20%"],
        ["wrong: 'c' 75%"],
    ]
    assert [mark.text for mark in listed.all("mark")] == ["a", "'\\n'"]
    assert root.all("script") == [] and "# card" in root.all("pre")[-1].text


def test_what_comes_next_follows_from_the_model() -> None:
    for kind in MODEL_KINDS:
        lines = commands_of(kind, Path("my runs/model"))
        assert all("'my runs/model'" in line for line in lines.values())
    assert "--model" in commands_of("masked_lm", Path("model"))["fine-tune it"]
    assert go_on({}) == ""
