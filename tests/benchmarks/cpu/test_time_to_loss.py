"""What is compared in time to a loss: equal beginnings, equal text, and the search for budgets."""

from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import results
from benchmarks.cpu import targets, time_to_loss
from benchmarks.cpu.pretrainings import SYSTEMS, Budget
from benchmarks.cpu.time_to_loss import BLOCKS, FRACTIONS, OURS, PADDED, lowest, shortest
from benchmarks.python_text import MAX_SEQLEN, Text

LOSSES = {PADDED: 3.0, BLOCKS: 2.0, OURS: 1.0}  # at a whole budget; less time, more loss


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """The real thing with a small corpus and vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.python_text.collect_python_corpus", _few_documents)
        patch.setattr("benchmarks.python_text.VOCAB_SIZE", 512)
        patch.setattr("benchmarks.python_text.HELD_OUT_TOKENS", 2_000)
        yield Text.prepare(folder)


def _few_documents(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = ["the", "house", "by", "river", "stands", "and", "falls", "stone", "old", "wall"]
    generator = np.random.default_rng(0)
    for name, count in (("held-out", 12), ("train", 60)):
        lines = (
            f'{{"text": "{number} {" ".join(generator.choice(words, 40 * (1 + number % 9)))}"}}\n'
            for number in range(count)
        )
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def test_blocks_and_rows_hold_the_same_text(text: Text) -> None:
    pieces, blocks = list(text.pieces()), list(text.blocks())
    special = text.opened.sources[0][0].special_token_ids
    assert all(piece[0] == special.cls and piece[-1] == special.sep for piece in pieces)
    assert max(map(len, pieces)) <= MAX_SEQLEN
    assert {len(block) for block in blocks} == {MAX_SEQLEN}
    row, blocked = list(chain(*pieces)), list(chain(*blocks))
    assert row[: len(blocked)] == blocked and len(row) - len(blocked) < MAX_SEQLEN
    total = text.opened.sources[0][0].num_tokens + 2 * len(pieces)
    assert sum(map(len, pieces)) == total


def test_everyone_begins_alike_and_learns(text: Text) -> None:
    """The loss before the first step is ours; after a few steps it is lower for all."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    weights = transformers.AutoModelForMaskedLM.from_pretrained(text.first_model).state_dict()
    begin = text.held_out_figures(weights)["held_out_loss"]
    budget = Budget(rate=4e-3, tokens=6_000, tokens_a_step=1_024, evaluations=2)
    runs = {name: train(text, budget) for name, train in SYSTEMS.items()}
    assert runs[OURS].points[0][:3] == pytest.approx((0, 0, begin), abs=1e-3)
    for name, run in runs.items():
        assert run.end.loss < begin - 0.5, name
        assert 6_000 <= run.end.tokens < 7_500, name
        assert 0 < run.points[-2].seconds <= run.end.seconds, name


@pytest.mark.parametrize("name", [OURS, BLOCKS])
def test_a_budget_of_seconds_ends_by_itself(text: Text, name: str) -> None:
    if name != OURS:
        pytest.importorskip("accelerate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.cpu.pretrainings._TRIAL_STEPS", 2)
        patch.setattr("benchmarks.cpu.pretrainings._TRIAL_WARMUP_STEPS", 1)
        run = SYSTEMS[name](text, Budget(rate=1e-3, seconds=0.1, tokens_a_step=1_024))
    assert run.end.seconds > 0
    assert run.end.tokens > 0
    assert run.precision in ("auto", "float32", "bfloat16")


def test_the_lowest_rate_is_found_downhill() -> None:
    for best in (2.5e-4, 1e-3, 8e-3):
        assert lowest(lambda rate, best=best: abs(rate - best)) == pytest.approx(best)


@pytest.mark.parametrize("first", FRACTIONS)
def test_the_shortest_budget_is_found_from_any_guess(first: float) -> None:
    for place, fraction in enumerate(FRACTIONS):
        tried: list[float] = []

        def reaches(at: float, enough: float = fraction, tried: list[float] = tried) -> bool:
            tried.append(at)
            return at >= enough

        assert shortest(reaches, first) == place
        assert len(tried) == len(set(tried)) <= 2 + abs(place - FRACTIONS.index(first))
        assert place == 0 or FRACTIONS[place - 1] in tried  # known to be too short
    assert shortest(lambda _: False, first) is None


def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[int, Any]:
    """A comparison whose runs cost nothing: a loss is its system's, divided by the time."""
    calls = []

    def run(name: str, budget: Budget, _: object) -> dict[str, Any]:
        calls.append(name)
        assert budget.seconds is not None
        points = [[budget.seconds, 9, LOSSES[name] * 60 / budget.seconds]]
        return {"points": points, "precision": "auto"}

    monkeypatch.setattr(time_to_loss, "_in_a_process", run)
    rates = tmp_path / "rates.json"
    best = {name: {"rate": 1e-3, "tokens_a_step": 2_048} for name in SYSTEMS}
    results.write(rates, {"best": best})
    options = SimpleNamespace(threads=1, minutes=1, seconds=seconds)
    return time_to_loss.compare(tmp_path / "time-to-loss.json", rates, options), calls


def test_times_are_those_of_the_shortest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, calls = compare(tmp_path, monkeypatch, seconds=10_000)
    assert status == 0 and calls[0] == PADDED
    found = results.read(tmp_path / "time-to-loss.json")
    assert found["checks"] == {"complete": True} and found["loss"] == 3
    # a third is enough for ours and two thirds for blocks; the next budgets are 0.4 and 0.8
    assert found["seconds_to_loss"][OURS] == pytest.approx(24)
    assert found["share_of_time"][PADDED] == pytest.approx(0.4)
    assert found["share_of_time"][BLOCKS] == pytest.approx(0.5)
    assert found["share_of_time"][f"{BLOCKS}, too short"] == pytest.approx(0.4 / 0.63)
    table = targets.table(tmp_path).splitlines()
    assert "| time to loss | rows padded | auto | at most 0.33 | 0.40 | not met |" in table
    assert "| time to loss | blocks, sparse | auto | at most 0.70 | 0.63 | met |" in table


def test_a_comparison_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With time for one run a call, each call does one; a finished comparison begins anew."""
    all_calls: list[str] = []
    for _ in range(20):
        status, calls = compare(tmp_path, monkeypatch, seconds=60)
        all_calls += calls
        if status == 0:
            break
        assert len(calls) == 1
    assert status == 0
    whole = compare(tmp_path, monkeypatch, seconds=10_000)[1]
    assert whole == all_calls and len(whole) > 5


def test_without_rates_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = tmp_path / "rates.json"
    assert time_to_loss.main(["--rates", str(rates)]) == 2
    results.write(rates, {"best": {OURS: {"rate": 1e-3}}})
    assert time_to_loss.main(["--rates", str(rates)]) == 2
    assert capsys.readouterr().err.count("--tune first") == 2
