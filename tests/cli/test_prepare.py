"""`modernbert prepare`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modernbert.data.shards import ShardFolder
from modernbert.data.spill import Spill
from modernbert.tokenizer.tokenizer import Tokenizer

Run = Callable[..., Any]


def test_summary_and_shards(run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    answer = run("prepare", corpus, out, "--tokenizer", tokenizer_folder, "--held-out", 0.1)
    assert answer.exit_code == 0
    train, held_out = ShardFolder.open(out), ShardFolder.open(out / "held-out")
    assert answer.stdout.splitlines() == [
        f"{out}: 72 documents, {train.num_tokens:,} tokens",
        f"{out / 'held-out'}: 8 documents, {held_out.num_tokens:,} tokens",
    ]
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    assert train.tokenizer_fingerprint == tokenizer.fingerprint
    shard = train.shards[0]
    first = shard.tokens[: int(shard.offsets[1])]
    assert tokenizer.decode(first.tolist()).startswith("The ")


def test_json(run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    with corpus.open("a") as file:
        file.write('{"other": "field"}\n')
    arguments = ("prepare", corpus, tmp_path / "out", "--tokenizer", tokenizer_folder, "--json")
    answer = run(*arguments, "--held-out", 0)
    assert answer.json["train"]["documents"] == 80
    assert answer.json["held_out"] is None
    assert answer.json["skipped"] == {"no field 'text'": 1}
    assert answer.json["already_finished"] is False
    assert "1 skipped" in answer.stderr
    assert run(*arguments, "--held-out", 0).json["already_finished"] is True


def test_strict_stops_at_a_bad_record(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with corpus.open("a") as file:
        file.write("{broken\n")
    out = tmp_path / "out"
    answer = run("prepare", corpus, out, "--tokenizer", tokenizer_folder, "--strict")
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: {corpus}")
    assert answer.stdout == ""


def test_another_seed_needs_another_folder(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    arguments = ("prepare", corpus, tmp_path / "out", "--tokenizer", tokenizer_folder)
    assert run(*arguments).exit_code == 0
    answer = run(*arguments, "--seed", 1)
    assert answer.exit_code == 2
    assert "seed" in answer.stderr and answer.stderr.count("\n") == 1


def test_stopped_by_hand(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("prepare", corpus, tmp_path / "out", "--tokenizer", tokenizer_folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spill, "finish_unit", interrupt)
        answer = run(*arguments)
    assert (answer.exit_code, answer.stdout) == (130, "")
    assert answer.stderr == "stopped; run the same command again to continue\n"
    assert run(*arguments).exit_code == 0


def test_workers_change_nothing(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.jsonl"
    second.write_text('{"text": "Two files, so that there is work for two."}\n' * 3)
    fingerprints = {
        run(
            *("prepare", corpus, second, tmp_path / f"out-{workers}", "--json"),
            *("--tokenizer", tokenizer_folder, "--workers", workers),
        ).json["train"]["fingerprint"]
        for workers in (1, 2)
    }
    assert len(fingerprints) == 1


def test_in_tasks(run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    def prepare(output: str, *more: object) -> Any:
        return run("prepare", corpus, tmp_path / output, "--tokenizer", tokenizer_folder, *more)

    said = [prepare("tasks", "--task", task, "--tasks", 2, "--json").json for task in (1, 0)]
    assert sum(each["documents"] for each in said) == 80
    shards = prepare("tasks", "--json").json
    assert shards["train"]["fingerprint"] == prepare("alone", "--json").json["train"]["fingerprint"]
    assert prepare("other", "--task", 0, "--tasks", 1).stdout.startswith(
        "task 0 of 1: 80 documents"
    )


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--from-datatrove", "--task", "0", "--tasks", "2"], "--from-datatrove: reads all"),
        (["--end-token", "[SEP]"], "--end-token: has an effect"),
    ],
)
def test_options_that_would_have_no_effect(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path, options: list[str], refused: str
) -> None:
    given = [corpus, tmp_path / "out", "--tokenizer", tokenizer_folder, *options]
    answer = run("prepare", *given)
    assert answer.exit_code == 2 and refused in answer.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [("--task", 0), ("--tasks", 2), ("--task", 2, "--tasks", 2)])
def test_tasks_that_do_not_exist(
    run: Run, corpus: Path, tokenizer_folder: Path, tmp_path: Path, given: tuple[object, ...]
) -> None:
    answer = run("prepare", corpus, tmp_path / "out", "--tokenizer", tokenizer_folder, *given)
    assert answer.exit_code == 2 and "task" in answer.stderr
