"""`modernbert` as a function, and a corpus for it."""

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modernbert.cli import main
from modernbert.settings import parse, to_toml
from modernbert.tasks.pretraining.recipe import PretrainingRecipe


@dataclass(frozen=True)
class Answer:
    """What a call gave."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def call(*arguments: object) -> Answer:
    """Call `modernbert` in this process; any error but one that it reports is raised."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
    assert isinstance(code, int)
    return Answer(code, stdout.getvalue(), stderr.getvalue())


def succeed(*arguments: object) -> Answer:
    """The same for a call that must not fail."""
    answer = call(*arguments)
    assert answer.exit_code == 0, answer.stderr
    return answer


def write_corpus(file: Path, texts: Iterable[str]) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def write_recipe(file: Path, settings: dict[str, Any]) -> Path:
    """A recipe's file, of settings that must be right."""
    file.write_text(to_toml(parse(PretrainingRecipe, settings, where=str(file))))
    return file
