"""Sparse embeddings against sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving.conftest import serving, text_of

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.kinds import model_kind
from modernbert.serving.models import load
from modernbert.serving.service import Service
from modernbert.serving.sparse import SparseEmbedder

TEXTS = [text_of(4), "", text_of(70, 1)]


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A masked language model with the files that make a SparseEncoder of it."""
    for file in folders["masked"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    home = "sentence_transformers.sparse_encoder.modules"
    steps = [
        ("", f"{home}.mlm_transformer.MLMTransformer"),
        ("1_SpladePooling", f"{home}.splade_pooling.SpladePooling"),
    ]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": name}
        for index, (path, name) in enumerate(steps)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    settings = {"pooling_strategy": "max", "activation_function": "relu"}
    write_pooling(tmp_path, **settings)
    return tmp_path


def write_pooling(folder: Path, **settings: Any) -> None:
    (folder / "1_SpladePooling").mkdir(exist_ok=True)
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(settings))


@pytest.mark.filterwarnings("ignore")
def test_as_sentence_transformers(folders: dict[str, Path], tmp_path: Path) -> None:
    import httpx
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    steps = [MLMTransformer(str(folders["masked"])), SpladePooling("max")]
    theirs = SparseEncoder(modules=steps, device="cpu")
    theirs.save_pretrained(str(tmp_path))
    expected = theirs.encode(TEXTS, show_progress_bar=False).to_dense().numpy()
    model = load(tmp_path, name="sparse", precision="float32")
    with serving(Service([model])) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/embed_sparse", json={"inputs": TEXTS})
        assert answer.status_code == 200, answer.text
        assert client.post("/", json={"inputs": TEXTS[0]}).json() == answer.json()[:1]
        assert client.post("/embed", json={"inputs": TEXTS}).status_code == 424
        info = client.get("/info").json()
    got = np.zeros_like(expected)
    for row, values in enumerate(answer.json()):
        for each in values:
            got[row, each["index"]] = each["value"]
    assert np.allclose(got, expected, atol=1e-5)
    assert 0 < (got > 0).sum() < got.size
    assert info["model_type"] == {"embedding": {"pooling": "splade"}}


def test_other_folders(folder: Path) -> None:
    assert model_kind(folder) == "sparse"
    write_pooling(folder, pooling_strategy="sum")
    with pytest.raises(ConfigError, match="sum"):
        SparseEmbedder.from_pretrained(folder)
    (folder / "1_SpladePooling" / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="JSON"):
        SparseEmbedder.from_pretrained(folder)
