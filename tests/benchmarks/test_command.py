"""Options from keywords, measuring in processes, and jobs that are run once."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import command
from benchmarks.command import Job, bare_parser, run_missing


def job(folder: Path, name: str, *, fails: bool = False) -> Job:
    out = folder / f"{name}.json"
    program = "raise SystemExit(1)" if fails else f"print(1); open({str(out)!r}, 'w').close()"
    return Job(name, [sys.executable, "-c", program], out, folder / "logs" / f"{name}.log")


def test_jobs_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.json").touch()
    jobs = [
        job(tmp_path, "there", fails=True),
        job(tmp_path, "failed", fails=True),
        job(tmp_path, "last"),
    ]
    assert run_missing(jobs, minutes=1) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["failed: ended with 1", "last: ended with 0"]
    assert (tmp_path / "logs" / "last.log").read_text() == "1\n"


def test_nothing_begins_after_the_time(tmp_path: Path) -> None:
    assert run_missing([job(tmp_path, "late")], minutes=-1) == 0
    assert not (tmp_path / "late.json").exists()


def test_options_take_the_type_of_their_default() -> None:
    made = bare_parser(
        "About.", size=(3, ""), rate=(float, ""), is_tiny=(False, ""), to=(Path("a"), "")
    )
    options = made.parse_args(["--size", "4", "--rate", "0.5", "--is-tiny", "--to", "b"])
    assert vars(options) == {"size": 4, "rate": 0.5, "is_tiny": True, "to": Path("b")}
    assert vars(made.parse_args([])) == {"size": 3, "rate": None, "is_tiny": False, "to": Path("a")}


def test_a_result_has_its_surroundings_and_a_place(tmp_path: Path) -> None:
    made = command.parser("About.", rounds=2)
    options = made.parse_args(["--threads", "1", "--output", str(tmp_path / "r.json")])
    result = command.measured("some", lambda given: {"rounds": given.rounds}, options)
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert (result["benchmark"], result["rounds"], result["num_threads"]) == ("some", 2, 1)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No module named benchmarks"):
        command.in_a_process("benchmarks.nowhere")
