"""The race, in seconds: runs that are scored alike, kept, and put in order."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.learning import candidates, run, standings
from benchmarks.learning.__main__ import main
from benchmarks.learning.text import Text
from modernbert.settings import load
from modernbert.tasks.pretraining.recipe import PretrainingRecipe

TOKENS = 4_096


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Text]:
    folder = tmp_path_factory.mktemp("text")
    rows = [
        {"text": f"the {n % 7} cats of house {n % 11} are {n % 5} and grey " * 9}
        for n in range(400)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.learning.text.VOCAB_SIZE", 400)
        patch.setattr("benchmarks.learning.text.HELD_OUT_TOKENS", 1_000)
        yield Text.prepare(folder, [folder / "rows.jsonl"])


@pytest.mark.parametrize("name", sorted(candidates.candidates()))
def test_every_candidate_is_a_recipe(name: str, text: Text, tmp_path: Path) -> None:
    recipe = run.candidate_recipe(name, 100_000, 3, text, tmp_path)
    assert sum(each.training.total_tokens for each in recipe.phases) == 100_000
    assert {each.seed for each in recipe.phases} == {3}


def test_recipe_files_take_part(text: Text, tmp_path: Path) -> None:
    for path in sorted(Path("src/modernbert/recipes").glob("*.toml")):
        own = load(PretrainingRecipe, path)
        recipe = run.candidate_recipe(str(path), 1_000_000, 0, text, tmp_path)
        assert [each.name for each in recipe.phases] == [each.name for each in own.phases]
        assert recipe.phases[0].model.start == str(text.first_model)


def test_numbers_of_tokens_are_shares_of_the_budget() -> None:
    table = candidates.recipe_table(candidates.named("paper"), 200_000)
    assert table["training"]["total_tokens"] == 200_000
    assert table["training"]["schedule"]["warmup_tokens"] == 20_000
    assert table["packing"]["max_seqlen"] == 512


def test_a_run_is_scored_at_even_distances(text: Text, tmp_path: Path) -> None:
    scores = run.train_candidate("adamw-1k", 2 * TOKENS, 0, text, tmp_path)
    assert [score.tokens for score in scores] == sorted({score.tokens for score in scores})
    assert scores[-1].tokens >= 2 * TOKENS and len(scores) >= run.NUM_POINTS
    assert scores[-1].loss < scores[0].loss
    assert all(score.cpu_seconds and score.accuracy is not None for score in scores)


def test_a_peer_is_scored_by_the_same_code(text: Text) -> None:
    pytest.importorskip("accelerate")
    scores = run.train_peer("transformers-blocks@1e-3@1024", TOKENS, 0, text)
    assert [score.tokens for score in scores] == [1_024, 2_048, 3_072, TOKENS]
    assert scores[-1].loss < 9 and scores[-1].cpu_seconds and scores[-1].accuracy is not None


def test_the_command_does_what_is_missing_and_the_table_puts_it_in_order(
    text: Text, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    ends = [("paper", 0, 6.0), ("adamw-1k", 0, 5.0), ("adamw-1k", 1, 5.2)]
    for name, seed, loss in [*ends, ("transformers-blocks@1e-3", 0, 5.55)]:
        folder = run.run_folder(runs, TOKENS, name, seed)
        folder.mkdir(parents=True)
        points = [
            {"tokens": at, "seconds": at, "cpu_seconds": at, "loss": end, "accuracy": 0.1}
            for at, end in ((1, 6.0), (2, loss))
        ]
        (folder / run.SCORES_FILE).write_text(json.dumps({"points": points}))
    places = ["--runs", str(runs), "--text", str(text.folder), "--tokens", str(TOKENS)]
    assert main([*places, "--names", "paper,adamw-1k"]) == 0  # all of it is there
    out = tmp_path / "out" / "learning.json"
    assert main([*places, "--table", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "`adamw-1k` | 5.100 ± 0.141 | 10.0% | 2 | 2 |" in lines[4] and "paper" in lines[6]
    peer = "`transformers-blocks@1e-3` | 5.550 | 2 | `adamw-1k` | 2 | 2 | 0.75 |"
    assert lines[5].startswith("| `transformers-blocks@1e-3` | 5.550") and peer in lines[-1]
    cheapest = "`adamw-1k` | 4,096 | 5.100 | `transformers-blocks@1e-3` | 4,096 | 5.550 |"
    assert f"| 150 | {cheapest}" in lines
    assert json.loads(out.read_text())["records"] == {str(TOKENS): "adamw-1k"}
    assert out.with_name(f"learning-{TOKENS}.png").exists()
    assert standings.final_losses(standings.read_runs(runs)[TOKENS]["adamw-1k"]) == [5.0, 5.2]
