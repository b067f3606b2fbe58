"""ONNX files compute what transformers does with the same folder, and lie where others look."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.conftest import KINDS, Folder

from modernbert import Embedder
from modernbert.errors import ExportError
from modernbert.export import onnx_export, quality
from modernbert.export.onnx_export import export_onnx, quantize
from modernbert.export.quality import default_sample
from modernbert.export.source import open_source
from modernbert.hashes import HASHES_FILE

pytestmark = [
    pytest.mark.filterwarnings("default:::onnxscript"),
    pytest.mark.filterwarnings("default:::onnx_ir"),
    pytest.mark.filterwarnings("default:::copyreg"),
]

SAMPLE = [f"the square of number {i} is {i * i}" for i in range(9)]
LOADERS = {
    "embedder": "AutoModel",
    "masked-lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "reranker": "AutoModelForSequenceClassification",
    "tagger": "AutoModelForTokenClassification",
    "reader": "AutoModelForQuestionAnswering",
}


def run(file: Path, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """By ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    return dict(zip(names, session.run(None, feed), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_transformers(exported: Folder, model_folder: Folder, kind: str) -> None:
    """At lengths around the window's edges, and past them, with padding."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs = getattr(transformers, LOADERS[kind]).from_pretrained(model_folder(kind)).eval()
    for lengths in ([2], [64, 65], [129, 1, 128, 130], [300, 5]):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, 448, (len(lengths), max(lengths)), generator=generator)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        with torch.no_grad():
            expected = theirs(input_ids=ids, attention_mask=mask)
        outputs = run(exported(kind) / "onnx/model.onnx", ids, mask)
        assert list(outputs) == list(expected)
        for name, values in outputs.items():
            real = ... if kind in ("classifier", "reranker") else mask.numpy() != 0
            assert np.isfinite(values).all()
            assert np.abs(values - expected[name].numpy())[real].max() < 2e-5, (name, lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_complete(exported: Folder, kind: str) -> None:
    names = {str(path.relative_to(exported(kind))) for path in exported(kind).rglob("*")}
    wanted = {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "onnx/model.onnx",
        "onnx/export.json",
    }
    if kind == "embedder":
        wanted |= {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}
    assert wanted <= names and "model.safetensors" not in names
    report = json.loads((exported(kind) / "onnx/export.json").read_text())
    assert report["opset"] == 18 and 0 < report["largest_difference"] < 1e-4


def test_the_graph_is_for_old_runtimes(exported: Folder) -> None:
    import onnx

    model = onnx.load(exported("masked-lm") / "onnx/model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [
        ("", 18)
    ]
    assert {node.domain for node in model.graph.node} <= {""}
    shapes = {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert shapes.keys() == {"input_ids", "attention_mask"} and all(map(all, shapes.values()))
    # The decoder shares the embedding.
    assert sum(448 * 64 in _sizes(x) for x in model.graph.initializer) == 1


def _sizes(tensor: Any) -> list[int]:
    return [int(np.prod(tensor.dims))]


@pytest.mark.parametrize(
    ("kind", "measure"),
    [("reranker", "correlation"), ("tagger", "agreement"), ("reader", "agreement")],
)
def test_int8_is_measured(
    exported: Folder, model_folder: Folder, tmp_path: Path, kind: str, measure: str
) -> None:
    file = exported(kind) / "onnx/model.onnx"
    quality = quantize(open_source(model_folder(kind)), file, tmp_path / "int8.onnx", SAMPLE)
    assert quality.measure == measure and quality.num_texts == 9
    assert 0.3 < quality.least <= quality.mean <= 1 and quality.mean > 0.8
    assert quality.megabytes < quality.float32_megabytes


def test_into_the_models_own_folder_with_int8(model_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("embedder"), folder)
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != HASHES_FILE
    }
    quality = export_onnx(folder, folder, int8=True, sample=SAMPLE).int8
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in (folder / "onnx").iterdir()} == {
        "model.onnx",
        "model_quantized.onnx",
        "export.json",
    }
    assert quality is not None and quality.measure == "cosine" and 0.99 < quality.least < 1
    stored = json.loads((folder / "onnx/export.json").read_text())
    assert stored["int8"]["mean"] == quality.mean
    # As fastembed and others use it: the mean of the vectors of a text's tokens.
    embedder = Embedder.from_pretrained(folder, precision="float32")
    ids = torch.tensor([embedder.tokenizer.encode(SAMPLE[0])])
    hidden = run(folder / "onnx/model.onnx", ids, torch.ones_like(ids))["last_hidden_state"]
    assert np.abs(hidden[0].mean(axis=0) - embedder.encode(SAMPLE[0])).max() < 1e-5


def test_float16_is_verified_and_measured(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Angles stay in float32, so that far positions are told apart."""
    quality = export_onnx(
        model_folder("embedder"), tmp_path / "out", float16=True, sample=SAMPLE
    ).float16
    assert quality is not None and quality.measure == "cosine" and 0.9999 < quality.least <= 1
    import onnx

    graph = onnx.load(tmp_path / "out/onnx/model_fp16.onnx").graph
    weights = {each.data_type for each in graph.initializer if np.prod(each.dims) > 64}
    assert weights == {onnx.TensorProto.FLOAT16}
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ids = torch.randint(5, 448, (2, 300), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    exact, halved = (
        run(tmp_path / "out/onnx" / name, ids, mask)["last_hidden_state"]
        for name in ("model.onnx", "model_fp16.onnx")
    )
    assert 0 < np.abs(exact - halved).max() < 0.02

    monkeypatch.setattr(onnx_export, "FLOAT16_TOLERANCE", 1e-9)
    with pytest.raises(ExportError, match="differs from the model"):
        export_onnx(model_folder("embedder"), tmp_path / "other", float16=True, sample=SAMPLE)
    assert not (tmp_path / "other").exists()


def test_large_models_have_their_weights_beside(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_MAX_BYTES", 0)
    report = export_onnx(
        model_folder("tagger"), tmp_path / "out", int8=True, float16=True, sample=SAMPLE
    )
    names = {path.name for path in (tmp_path / "out/onnx").iterdir()}
    assert {f"model{each}.onnx.data" for each in ("", "_quantized", "_fp16")} <= names
    assert report.int8 is not None and report.int8.float32_megabytes > 0.2
    ids = torch.tensor([[5, 6, 7]])
    for name in ("model.onnx", "model_quantized.onnx", "model_fp16.onnx"):
        assert run(tmp_path / "out/onnx" / name, ids, torch.ones_like(ids))["logits"].any()


def test_a_wrong_export_is_not_kept(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose window is off by one."""
    trace = onnx_export._trace

    def off_by_one(source: Any, file: Path) -> None:
        config = source.model.encoder.config
        object.__setattr__(config, "window", config.window - 1)
        trace(source, file)
        object.__setattr__(config, "window", config.window + 1)

    monkeypatch.setattr(onnx_export, "_trace", off_by_one)
    with pytest.raises(ExportError, match=r"logits differs from the model by .* was not kept"):
        export_onnx(model_folder("masked-lm"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_default_sample() -> None:
    sample = default_sample()
    assert len(sample) == len(set(sample)) == 64
    assert all(80 <= len(text) <= 1500 for text in sample)


def test_verification_looks_past_the_window() -> None:
    longest = [length for lengths in quality._BATCHES for length in lengths]
    assert {1, 64, 65, 129, 130} <= set(longest) and max(longest) > 3 * 128
