"""`--revision` pins the model on the hub that a verb names."""

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from modernbert.cli.app import app
from modernbert.errors import ModernBertError

_ARGUMENTS = {
    "evaluate": "NAME rows.csv",
    "score": "NAME rows.csv",
    "fill-mask": "NAME text",
    "embed": "rows.csv NAME -o out.npy",
    "mine": "rows.csv NAME -o out.jsonl",
    "classify": "NAME text",
    "tag": "NAME text",
    "answer": "NAME --context rows.csv question",
    "rerank": "NAME query text",
    "serve": "NAME",
    "prepare": "rows.csv out --tokenizer NAME",
    "tokenizer extend": "NAME out --token [NEW]",
    "export safetensors": "NAME -o out",
    "export onnx": "NAME -o out",
    "finetune classify": "--model NAME --train rows.csv",
    "finetune rerank": "--model NAME --train pairs.csv",
}


class _AskedError(Exception):
    """What the hub was asked for."""


@pytest.fixture(autouse=True)
def _hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(hub_id: str, *, revision: str | None, **_: Any) -> str:
        raise _AskedError(f"{hub_id} at {revision}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "pairs.csv").write_text("query,positive\na,x\nb,y\n")


def _run(arguments: str) -> str:
    result = CliRunner().invoke(app, arguments.split())
    return result.output + str(result.exception)


@pytest.mark.parametrize("verb", _ARGUMENTS)
def test_a_verb_asks_for_the_revision(verb: str) -> None:
    said = _run(f"{verb} {_ARGUMENTS[verb]} --revision v1.0".replace("NAME", "owner/name"))
    assert "owner/name at v1.0" in said


def test_every_verb_that_takes_a_model_has_it() -> None:
    root: Any = get_command(app)
    commands = dict(root.commands)
    for name in ("tokenizer", "export", "finetune"):
        inner = commands.pop(name).commands
        commands.update({f"{name} {each}": command for each, command in inner.items()})
    lacking = [
        name
        for name, command in commands.items()
        if any("hub id" in (getattr(each, "help", None) or "") for each in command.params)
        and not any("--revision" in each.opts for each in command.params)
    ]
    assert lacking == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fill-mask owner/name@v1 text --revision v2", "names a revision already"),
        ("fill-mask rows.csv text --revision v2", "is not a hub id"),
        ("serve owner/a owner/b --revision v2", "of several write ID@REVISION each"),
        ("finetune classify --train rows.csv --revision v2", "needs --model"),
        ("fill-mask owner/name text --revision ../x", "expected a commit, a tag or a branch"),
    ],
)
def test_what_has_no_revision(arguments: str, message: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert isinstance(result.exception, ModernBertError) and message in str(result.exception)
