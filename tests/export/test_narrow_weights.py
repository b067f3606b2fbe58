"""Weights in other formats: readers of safetensors read them, and they are the rounded ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.export.conftest import Folder

from modernbert import Embedder, MaskedLanguageModel
from modernbert.errors import ConfigError, ExportError, ModelFolderError
from modernbert.export.narrow_weights import export_weights


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_are_rounded(model_folder: Folder, tmp_path: Path, precision: str) -> None:
    source, output = model_folder("masked-lm"), tmp_path / "out"
    report = export_weights(source, output, precision=precision)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, output))
    dtype = getattr(torch, precision)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name].to(dtype)) for name in before)
    assert report.megabytes == pytest.approx(report.source_megabytes / 2, abs=0.1)
    assert 2**-12 < report.largest_relative_change <= (2**-8 if precision == "bfloat16" else 2**-10)
    config = json.loads((output / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert {p.name for p in output.iterdir()} == {p.name for p in source.iterdir()}


def test_others_load_them(model_folder: Folder, tmp_path: Path) -> None:
    import transformers

    output = tmp_path / "out"
    export_weights(model_folder("masked-lm"), output, precision="bfloat16")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(output)
    assert theirs.dtype is torch.float32
    ours = MaskedLanguageModel.from_pretrained(output)
    assert torch.equal(ours.head.dense.weight, theirs.head.dense.weight.float())


def test_others_compute_the_same_from_narrow_weights(model_folder: Folder, tmp_path: Path) -> None:
    """With `dtype: bfloat16` in config.json all of theirs is computed so, 0.01 away from ours."""
    library = pytest.importorskip("sentence_transformers")
    export_weights(model_folder("embedder"), tmp_path / "out", precision="bfloat16")
    texts = ["a good film", "a dull one, and a long story"]
    ours = Embedder.from_pretrained(tmp_path / "out", precision="float32").encode(texts)
    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
    assert abs(ours - theirs).max() < 1e-5


def test_folders_of_sentence_transformers(model_folder: Folder, tmp_path: Path) -> None:
    """All steps come along, and those with weights of their own are converted too."""
    source = tmp_path / "source"
    for path in model_folder("embedder").rglob("*"):
        if path.is_file():
            place = source / path.relative_to(model_folder("embedder"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    dense = source / "3_Dense"
    dense.mkdir()
    save_file({"linear.weight": torch.ones(2, 64)}, dense / "model.safetensors")
    (dense / "config.json").write_text('{"in_features": 64, "out_features": 2}')
    output = tmp_path / "out"
    export_weights(source, output, precision="float16")
    vectors = [
        Embedder.from_pretrained(f, precision="float32").encode(["a"]) for f in (source, output)
    ]
    assert 0 < abs(vectors[0] - vectors[1]).max() < 1e-2
    (weight,) = load_file(output / "3_Dense/model.safetensors").values()
    assert weight.dtype is torch.float16
    assert json.loads((output / "3_Dense/config.json").read_text()) == {
        "in_features": 64,
        "out_features": 2,
    }


def test_what_cannot_be(model_folder: Folder, tmp_path: Path) -> None:
    source = model_folder("masked-lm")
    with pytest.raises(ExportError, match="is the model's own folder"):
        export_weights(source, source, precision="bfloat16")
    with pytest.raises(ConfigError, match="precision: got 'int4'"):
        export_weights(source, tmp_path / "out", precision="int4")
    with pytest.raises(ModelFolderError):
        export_weights(tmp_path, tmp_path / "out", precision="bfloat16")

    large = tmp_path / "large"
    model = MaskedLanguageModel.from_pretrained(source)
    with torch.no_grad():
        model.head.dense.weight[0, 0] = 1e6
    model.save_pretrained(large)
    with pytest.raises(
        ExportError, match=r"head.dense.weight: has weights that are too large for float16"
    ):
        export_weights(large, tmp_path / "out", precision="float16")
    assert not (tmp_path / "out").exists()
