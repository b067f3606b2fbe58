"""`modernbert report`."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.report.example_run import write_run


def test_the_page_of_a_run(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    answer = run("report", tmp_path / "run")
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path}/run/report.html\n")
    assert (tmp_path / "run" / "report.html").exists()


def test_a_folder_that_is_no_run(run: Run, tmp_path: Path) -> None:
    answer = run("report", tmp_path)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ") and "give the folder of a run" in answer.stderr


def test_the_page_of_a_fine_tuning_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run" / "runs").mkdir(parents=True)
    answer = run("report", tmp_path / "run")
    assert answer.exit_code == 2 and "repeat the command that began it" in answer.stderr
    (tmp_path / "run" / "report.html").write_text("a page")
    answer = run("report", tmp_path / "run")
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path}/run/report.html\n")
    assert (tmp_path / "run" / "report.html").read_text() == "a page"
