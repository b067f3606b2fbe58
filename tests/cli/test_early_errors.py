"""Mistyped names are told of before torch is imported: each verb in a process without it."""

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import sys
sys.modules["torch"] = None  # importing it fails
from modernbert.cli import main
main(sys.argv[1:])
"""
_MODEL = '{"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(_MODEL)
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("finetune classify -m ./models --train train.csv", "models: no such folder"),
        ("finetune classify -m model --train trian.csv", "did you mean train.csv?"),
        ("finetune classify -m model --train train.csv --text txet", "did you mean 'text'?"),
        ("finetune classify -m model --train train.csv --label lable", "did you mean 'label'?"),
        ("finetune tag -m model --train train.csv --dev dev.csv", "dev.csv: no such file"),
        ("finetune answer -m model --train train.csv", "none of the columns question"),
        ("finetune retrieve -m model --train train.csv", "none of the columns query"),
        ("finetune regress -m model --train train.csv --dev 90%", "--dev: got '90%'"),
        ("classify model a", "fine-tune it with `modernbert finetune classify`"),
        ("tag model a", "fine-tune it with `modernbert finetune tag`"),
        ("rerank model q a", "fine-tune it with `modernbert finetune rerank`"),
        ("answer model --context train.csv q", "fine-tune it with `modernbert finetune answer`"),
        ("fill-mask ./models a", "models: no such folder"),
        ("embed train.csv model -o a.npy --text-field txet", "did you mean 'text'?"),
        ("search a.index model q", "a.index: no such file or folder"),
        ("mine trian.csv model -o a.jsonl", "did you mean train.csv?"),
        ("evaluate ./models glue", "models: no such folder"),
        ("export onnx ./models -o out", "models: no such folder"),
        ("pretrain recipe.toml", "recipe.toml: no such file"),
        ("plan recipe.toml --kind h100", "recipe.toml: no such file"),
    ],
)
def test_a_mistake_is_told_without_torch(folder: Path, arguments: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
