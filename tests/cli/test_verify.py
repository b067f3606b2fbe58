"""`verify`: every changed file is found, and nothing else is said to be one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.reliability.samples import write_corpus, write_samples

from modernbert.hashes import HASHES_FILE


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("samples")
    write_samples(home)
    return home


def test_all_that_was_written_is_as_it_was(run: Callable[..., Any], samples: Path) -> None:
    answer = run("verify", samples)
    assert answer.exit_code == 0, answer.stdout
    found = run("verify", samples, "--json").json
    assert found["faults"] == [] and found["files"] > 60
    assert f"{found['files']:,} of {found['files']:,} files as written" in answer.stdout


def test_a_flipped_bit_of_any_file_is_found(run: Callable[..., Any], samples: Path) -> None:
    for path in sorted(samples.rglob("*")):
        if not path.is_file() or not path.stat().st_size:
            continue
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        answer = run("verify", path.parents[-1 - len(samples.parts)])
        path.write_bytes(content)
        assert answer.exit_code == 2, f"{path}: {answer.stdout}"
        assert str(path.parent) in answer.stdout + answer.stderr, path


@pytest.mark.parametrize("name", ["out.npy", "out.parquet"])
def test_files_of_vectors(
    run: Callable[..., Any], samples: Path, tmp_path: Path, name: str
) -> None:
    write_corpus(tmp_path / "texts.jsonl")
    output = tmp_path / name
    made = run("embed", tmp_path / "texts.jsonl", samples / "embedder", "-o", output)
    assert made.exit_code == 0, made.stderr
    assert run("verify", output).exit_code == 0
    assert run("verify", tmp_path, "--json").json["faults"] == []
    output.write_bytes(output.read_bytes()[:-1])
    answer = run("verify", output)
    assert answer.exit_code == 2 and f"{output}: has " in answer.stdout


def test_a_missing_file_is_found(run: Callable[..., Any], tmp_path: Path, samples: Path) -> None:
    hashes = json.loads((samples / "tokenizer" / HASHES_FILE).read_text())
    (tmp_path / HASHES_FILE).write_text(json.dumps(hashes))
    answer = run("verify", tmp_path, "--json")
    assert answer.exit_code == 2
    assert answer.json["faults"] == [f"{tmp_path / name}: is missing" for name in hashes["files"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "modernbert hashes 1", "files": {"../x": 5}}', "expected a table"),
        ('{"format": "other", "files": {}}', "format"),
        (
            '{"format": "modernbert hashes 1", "files": {"../x": {"bytes": 1, "sha256": ""}}}',
            "not a file within the folder",
        ),
        ("[", "not a readable JSON file"),
    ],
)
def test_hashes_that_are_none(
    run: Callable[..., Any], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / HASHES_FILE).write_text(content)
    answer = run("verify", tmp_path)
    assert answer.exit_code == 2 and message in answer.stdout


def test_what_has_no_hashes_is_no_success(run: Callable[..., Any], tmp_path: Path) -> None:
    answer = run("verify", tmp_path)
    assert answer.exit_code == 2 and "holds no file that was written with a hash" in answer.stderr
    answer = run("verify", tmp_path / "nowhere")
    assert answer.exit_code == 2 and "no such file or folder" in answer.stderr
