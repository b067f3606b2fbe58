"""`modernbert export` and `modernbert push` through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.conftest import Run

from modernbert import EncoderConfig, MaskedLanguageModel, Tokenizer
from modernbert.export.formats import FORMATS
from modernbert.model.initialize import initialize

pytestmark = [
    pytest.mark.filterwarnings("default:::onnxscript"),
    pytest.mark.filterwarnings("default:::onnx_ir"),
    pytest.mark.filterwarnings("default:::copyreg"),
]


@pytest.fixture(scope="module")
def model(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    folder = tmp_path_factory.mktemp("model")
    sizes: dict[str, Any] = {"hidden_size": 32, "num_heads": 1, "intermediate_size": 32}
    config = EncoderConfig.preset(
        "tiny", vocab_size=tokenizer.vocab_size, layer_kinds=("global", "local"), **sizes
    )
    initialize(MaskedLanguageModel(config), seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_onnx(run: Run, model: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.txt"
    sample.write_text("The square of 7 is 49.\nThe root of 9 is 3.\n")
    output = tmp_path / "out"
    answer = run("export", "onnx", model, "-o", output, "--int8", "--sample", sample, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["kind"] == "ModernBertForMaskedLM"
    assert answer.json["int8"]["num_texts"] == 2 and answer.json["largest_difference"] < 1e-4
    assert "agreement with float32" in answer.stderr
    assert (output / "onnx/model_quantized.onnx").is_file()


def test_gguf_is_not_for_outputs_of_tokens(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("export", "gguf", model, "-o", tmp_path / "out")
    assert answer.exit_code == 2
    assert "holds a masked language model, expected an encoder without a head" in answer.stderr


def test_the_list_names_every_format(run: Run) -> None:
    answer = run("export", "--list")
    assert answer.exit_code == 0
    assert all(f"{name}: read by " in answer.stdout for name in FORMATS)
    assert "for an encoder without a head, an embedding model, a classifier" in answer.stdout


def test_safetensors(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("export", "safetensors", model, "-o", tmp_path / "out", "--json")
    assert answer.exit_code == 0 and answer.json["precision"] == "bfloat16"
    assert "MB became" in answer.stderr
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "out")
    assert loaded.config == MaskedLanguageModel.from_pretrained(model).config
    weight = loaded.head.dense.weight
    assert torch.equal(weight, weight.bfloat16().float())


def test_mistakes_are_one_line(run: Run, model: Path, tmp_path: Path) -> None:
    for arguments in (
        ("export", "onnx", tmp_path / "nowhere", "-o", tmp_path / "out"),
        ("export", "safetensors", model, "-o", model),
        ("push", model, "me/mine"),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 2 and answer.stdout == ""
        assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1


def test_push(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, Any] = {}

    def push_folder(folder: Path, hub_id: str, **options: Any) -> str:
        pushed.update(folder=folder, hub_id=hub_id, **options)
        return "https://hub.example/me/mine"

    monkeypatch.setattr("modernbert.hub.push_folder", push_folder)
    answer = run("push", tmp_path, "me/mine", "--private", "-m", "First")
    assert answer.exit_code == 0 and "pushed to https://hub.example/me/mine" in answer.stderr
    assert json.dumps(pushed, default=str) == json.dumps(
        {"folder": str(tmp_path), "hub_id": "me/mine", "private": True, "message": "First"}
    )
