"""The progress of work: lines now and then, or a bar on a terminal."""

import io
import sys

import pytest

from modernbert.cli.terminal import Meter, lines, tell


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    tell("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Meter("reading", clock=clock) as meter:
        for second in range(61):
            meter.update(second, 61, f"{second} documents")
            clock.now += 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "reading  2%  1 documents",
        "reading  26%  16 documents  0:45 left",
        "reading  51%  31 documents  0:30 left",
        "reading  75%  46 documents  0:15 left",
    ]


def test_time_left_counts_only_what_this_process_did(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that resumes at half its tokens has not done that half in a second."""
    clock = Clock()
    with Meter("pretraining", clock=clock) as meter:
        meter.update(500, 1000, "")
        clock.now += 20
        meter.update(600, 1000, "")
    assert capsys.readouterr().err == "pretraining  60%  1:20 left\n"


def test_the_next_piece_of_work_has_a_time_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Meter("reading", clock=clock) as meter:
        meter.update(0, 100, "")
        clock.now += 10
        meter.restart("writing")
        meter.update(0, 50, "")
        clock.now += 20
        meter.update(25, 50, "")
    assert capsys.readouterr().err == "writing  0%\nwriting  50%  0:20 left\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Meter("pretraining") as meter:
        meter.update(1, 4, "loss 9.01")
        tell("step 1 [evaluated]")
    shown = terminal.getvalue()
    assert "pretraining" in shown and "25%" in shown and "loss 9.01" in shown
    assert "step 1 [evaluated]" in shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"rate": 1, "loss": 2}, {"rate": 3}], ["scores", "  1  loss 2", "  3"]),
        ([{}], ["scores  none"]),  # as in files of a stranger
        ([{}, {"rate": 1}], ["scores  none, 1"]),
        ([{"rate": 1}, 5], ["scores  1, 5"]),
        ({}, ["scores  none"]),
    ],
)
def test_lists_are_lines_where_all_are_records(value: object, expected: list[str]) -> None:
    assert list(lines({"scores": value})) == expected
