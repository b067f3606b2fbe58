"""OpenVINO files compute what transformers does with the same folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.conftest import KINDS, Folder

from modernbert import Embedder
from modernbert.errors import ExportError
from modernbert.export import openvino_export
from modernbert.export.openvino_export import export_openvino

pytest.importorskip("openvino", reason="needs the extra `openvino`")
pytest.importorskip("nncf", reason="needs the extra `openvino`")
pytestmark = pytest.mark.filterwarnings("default")

SAMPLE = [f"the square of number {i} is {i * i}" for i in range(9)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_is_verified(model_folder: Folder, tmp_path: Path, kind: str) -> None:
    report = export_openvino(model_folder(kind), tmp_path / "out")
    assert (tmp_path / "out" / report.file).is_file() and report.largest_difference < 1e-4
    stored = json.loads((tmp_path / "out/openvino/export.json").read_text())
    assert stored["outputs"] == list(report.outputs) and "openvino" in stored["packages"]
    assert (tmp_path / "out/tokenizer.json").is_file()


def test_int8_is_measured_and_used_as_others_do(
    model_folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openvino

    folder = model_folder("embedder")
    quality = export_openvino(folder, tmp_path / "out", int8=True, sample=SAMPLE).int8
    assert quality is not None and quality.measure == "cosine" and 0.98 < quality.least < 1
    assert quality.megabytes < quality.float32_megabytes
    assert capsys.readouterr().out == ""
    file = tmp_path / "out/openvino/openvino_model.xml"
    model = openvino.Core().compile_model(file, "CPU")
    embedder = Embedder.from_pretrained(folder, precision="float32")
    ids = torch.tensor([embedder.tokenizer.encode(SAMPLE[0])])
    feed = {"input_ids": ids.numpy(), "attention_mask": np.ones_like(ids.numpy())}
    hidden = model(feed)["last_hidden_state"]
    assert np.abs(hidden[0].mean(axis=0) - embedder.encode(SAMPLE[0])).max() < 2e-2  # in bfloat16


def test_a_wrong_export_is_not_kept(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = openvino_export.OpenVinoSession.__call__
    monkeypatch.setattr(
        openvino_export.OpenVinoSession,
        "__call__",
        lambda self, *inputs: [each + 1 for each in run(self, *inputs)],
    )
    with pytest.raises(ExportError, match="was not kept"):
        export_openvino(model_folder("tagger"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
