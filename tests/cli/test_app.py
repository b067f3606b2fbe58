"""The command line as a whole: help, errors, exit codes, streams."""

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from modernbert import __version__
from modernbert.cli import app as module
from modernbert.cli import main
from modernbert.errors import InputError


def verbs_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command and group below a group, in their order."""
    for name in group.list_commands(None):
        yield (*path, name)
        if hasattr(group.commands[name], "commands"):
            yield from verbs_of(group.commands[name], (*path, name))


APP: Any = typer.main.get_command(module.app)
VERBS = list(verbs_of(APP))
HEAVY = ("torch", "numpy", "transformers", "tokenizers", "pyarrow", "matplotlib")


@pytest.mark.parametrize("verb", [(), *VERBS], ids=" ".join)
def test_help_names_the_verb(run: Callable[..., Any], verb: tuple[str, ...]) -> None:
    answer = run(*verb, "--help")
    assert answer.exit_code == 0 and answer.stderr == ""
    assert " ".join(["modernbert", *verb]) in answer.stdout


def command_of(verb: tuple[str, ...]) -> Any:
    command = APP
    for name in verb:
        command = command.commands[name]
    return command


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_tells_the_purpose_in_a_line_and_ends_with_an_example(
    run: Callable[..., Any], verb: tuple[str, ...]
) -> None:
    purpose = str(command_of(verb).help).partition("\n\n")[0]
    assert purpose.endswith(".") and len(purpose) <= 66
    text = " ".join(run(*verb, "--help").stdout.split())
    found = re.search(r"Example: modernbert (.*)$", text)
    assert found is not None
    parse_as_typed(APP, shlex.split(found[1]))


def parse_as_typed(group: Any, arguments: list[str]) -> None:
    """Parse arguments as the command line does, without running the verb."""
    name, *rest = arguments
    command = group.commands[name]
    if hasattr(command, "commands"):
        parse_as_typed(command, rest)
    else:
        command.make_context(name, rest)


def test_help_of_every_verb_waits_for_nothing_heavy() -> None:
    program = f"""
import contextlib, io, sys
from modernbert.cli import main
for verb in {[(), *VERBS]!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([*verb, "--help"])
print(*(set(sys.modules) & set({HEAVY!r})))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.split() == []


def test_verbs_are_listed_in_the_order_of_use(run: Callable[..., Any]) -> None:
    help_text = run("--help").stdout
    verbs = [verb[0] for verb in VERBS if len(verb) == 1]
    places = [help_text.index(f"│ {verb} ") for verb in verbs]
    assert places == sorted(places)


def test_the_version(run: Callable[..., Any]) -> None:
    assert run("--version").stdout == f"{__version__}\n"


def test_without_a_verb_it_helps(run: Callable[..., Any]) -> None:
    assert "Usage: modernbert" in run().stdout


def test_as_a_module() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "modernbert", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stdout) == (0, f"{__version__}\n")


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(module, "app", fail)


def test_an_error_of_the_user_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, InputError("x.txt: got nothing,\nexpected a text"))
    answer = run("info", "x.txt")
    assert answer.exit_code == 2
    assert (answer.stdout, answer.stderr) == ("", "error: x.txt: got nothing, expected a text\n")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        main(["info", "x"])


@pytest.mark.parametrize("arguments", [["prepaer"], ["info"], ["info", "a", "b"], ["info", "-x"]])
def test_wrong_usage(run: Callable[..., Any], arguments: list[str]) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert answer.stdout == "" and "Usage: modernbert" in answer.stderr


def test_a_reader_that_leaves_is_no_error(tokenizer_folder: Any) -> None:
    """As in `modernbert info ... | head -0`: the pipe is closed before anything is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modernbert", "info", str(tokenizer_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "export onnx model -o out --sample x.txt",
            "--sample: has no effect without --int8 or --float16",
        ),
        ("export onnx model -o out --int8 --text-field x", "no effect without --sample"),
        ("average model -o out --max-tokens 9", "--max-tokens: has no effect without --held-out"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    run: Callable[..., Any], tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "modernbert"}')
    with contextlib.chdir(tmp_path):
        answer = run(*arguments.split())
    assert answer.exit_code == 2 and message in answer.stderr
