"""The command line as a function, and a small corpus with a tokenizer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modernbert.cli import main
from modernbert.tokenizer.train import train


@dataclass(frozen=True)
class Answer:
    """What a call gave."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Run = Callable[..., Answer]

TEXTS = [f"The {word} of number {i} is {i * i}." for i in range(40) for word in ("square", "root")]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `modernbert` in this process."""

    def call(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(left.value.code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train(TEXTS, vocab_size=512).save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return file
