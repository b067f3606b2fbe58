"""A run folder has one recipe and one process at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.full_disk import largest_file

from modernbert.errors import RunError
from modernbert.training.run_folder import (
    RUN_FILE,
    claim,
    first_difference,
    locked,
    plain,
    require_free,
)


def test_the_first_claim_stays(tmp_path: Path) -> None:
    identity = {"seed": 1, "model": {"layers": 6}}
    claim(tmp_path, identity)
    claim(tmp_path, identity)
    with pytest.raises(
        RunError, match=r"another recipe: model\.layers is 6 there and 8 here; choose"
    ):
        claim(tmp_path, {"seed": 1, "model": {"layers": 8}})
    assert json.loads((tmp_path / RUN_FILE).read_text()) == {"identity": identity}


@pytest.mark.parametrize(
    ("stored", "given", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {}, "a is 1 there and absent here"),
        ({}, {"b": {"c": "x"}}, 'b is absent there and {"c": "x"} here'),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a is [1, 2] there and [1, 3] here"),
        ({"z": 1, "a": 2}, {"z": 2, "a": 3}, "z is 1 there and 2 here"),
        ({"a": 1}, {"a": 1.5}, "a is 1 there and 1.5 here"),
    ],
)
def test_first_difference(stored: object, given: object, difference: str | None) -> None:
    assert first_difference(stored, given) == difference


def test_plain_makes_tuples_lists() -> None:
    assert plain({"betas": (0.9, 0.98)}) == {"betas": [0.9, 0.98]}


def test_a_foreign_run_file_is_refused(tmp_path: Path) -> None:
    for content, message in (("[]", "expected a JSON object"), ("{}", "not a run's identity")):
        (tmp_path / RUN_FILE).write_text(content)
        with pytest.raises(RunError, match=message):
            claim(tmp_path, {})


def test_a_folder_is_locked_and_freed(tmp_path: Path) -> None:
    folder, again = tmp_path / "run", pytest.raises(RunError, match="another process")
    with locked(folder), again, locked(folder):
        pass
    with locked(tmp_path / "run"):
        pass


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from modernbert.training.run_folder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=rf"\(id {holder.pid}\)"), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("free_bytes", [0, 8])  # too few for the lock, for the identity
def test_a_full_disk_is_told(tmp_path: Path, free_bytes: int) -> None:
    told = pytest.raises(RunError, match="File too large")
    with told, largest_file(free_bytes), locked(tmp_path):
        claim(tmp_path, {"seed": 1})
    with locked(tmp_path):
        claim(tmp_path, {"seed": 2})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match="file: is a file; choose a folder as output"),
        locked(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize("name", ["report.html", "results.json", "config.json", "model"])
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("anything")
    require_free(tmp_path, tmp_path / "model")
    (tmp_path / name).write_text("of someone else")
    with pytest.raises(RunError, match=rf"{name}: exists and does not belong to a run; choose"):
        require_free(tmp_path, tmp_path / "model")
    claim(tmp_path, {})
    require_free(tmp_path, tmp_path / "model")


def test_changed_contents_are_told_in_words() -> None:
    before, now = {"examples": "a" * 64}, {"examples": "b" * 64}
    told = first_difference(before, now)
    assert told == "the training, dev or test rows changed since the run began"
