"""`modernbert tokenizer`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert.tokenizer.tokenizer import Tokenizer


def test_train(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    answer = run("tokenizer", "train", corpus, tmp_path / "out", "--vocab-size", 512)
    assert answer.exit_code == 0
    assert answer.stdout == ""
    assert "a tokenizer of 512 entries" in answer.stderr
    assert Tokenizer.from_pretrained(tmp_path / "out").vocab_size == 512


def test_several_files_and_another_field(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one two three four five six"}\n' * 3)
    (tmp_path / "b.txt").write_text("seven eight nine ten")
    answer = run(
        *("tokenizer", "train", tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path / "out"),
        *("--vocab-size", 5000, "--text-field", "body"),
    )
    assert answer.exit_code == 0
    assert "the corpus is too small for a vocabulary of 5,000 entries" in answer.stderr


def test_skipped_records_are_told(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    with corpus.open("a") as file:
        file.write("{broken\n")
    answer = run("tokenizer", "train", corpus, tmp_path / "out", "--vocab-size", 512)
    assert answer.exit_code == 0
    assert "1 skipped" in answer.stderr


def test_errors_are_one_line(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    for arguments in (
        ("train", tmp_path / "absent.txt", tmp_path / "out"),
        ("train", corpus, tmp_path / "out", "--vocab-size", 10),
        ("derive", corpus, tmp_path / "out"),
    ):
        answer = run("tokenizer", *arguments)
        assert answer.exit_code == 2
        assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_derive(run: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    olmo = shared_data / "tokenizer" / "olmo-dolma-v1_5.json"
    answer = run("tokenizer", "derive", olmo, tmp_path / "out")
    assert answer.exit_code == 0
    assert Tokenizer.from_pretrained(tmp_path / "out").vocab_size == 50_368
