"""Sparse embeddings against sentence-transformers."""

from pathlib import Path

import numpy as np
import pytest
from tests.serving.conftest import serving, text_of

from modernbert.serving.models import load
from modernbert.serving.service import Service

TEXTS = [text_of(4), "", text_of(70, 1)]


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
