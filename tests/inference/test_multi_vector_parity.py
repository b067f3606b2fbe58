"""Folders of sentence-transformers' MultiVectorEncoder, in both directions, with equal vectors."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import shaken

from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings, QueryExpansion
from modernbert.inference.similarity import max_sim
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import (
    MultiVectorModel,
    Projection,
    ProjectionSettings,
    projection,
)
from modernbert.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)

QUERIES = ["what is the square of 7", "not", "number 3 is less"]
DOCUMENTS = ["the square of 7 is 49, not less.", "not", "number 3. is, not less than 9", "a " * 40]
EXPANSIONS = [
    None,
    QueryExpansion(length=16),
    QueryExpansion(length=16, attend=True),
    QueryExpansion(length=8, strategy="min"),
    QueryExpansion(length=8, strategy="min", attend=True),
]


def peer(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def assert_equal(ours: MultiVectorEmbedder, theirs: Any) -> None:
    pairs = (
        (ours.encode_query(QUERIES), theirs.encode_query(QUERIES, convert_to_numpy=True)),
        (ours.encode_document(DOCUMENTS), theirs.encode_document(DOCUMENTS, convert_to_numpy=True)),
    )
    for mine, others in pairs:
        for a, b in zip(mine, others, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    expected = theirs.similarity(*(others for _, others in pairs)).numpy()
    scores = ours.similarity(*(mine for mine, _ in pairs))
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.fixture(scope="module")
def encoder_folder(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder, model_max_length=config.max_seqlen)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("expansion", EXPANSIONS)
def test_our_folder_there(
    tmp_path: Path, encoder_folder: Path, tokenizer: Tokenizer, expansion: QueryExpansion | None
) -> None:
    layers = [
        projection(64, 32, seed=1),
        Projection(
            ProjectionSettings(
                in_features=32, out_features=16, bias=True, activation="GELU", residual=True
            )
        ),
    ]
    model = MultiVectorModel(Encoder.from_pretrained(encoder_folder), layers).requires_grad_(False)
    settings = MultiVectorSettings(
        prompts={"query": "[unused0]", "document": "[unused1]"},
        expansion=expansion,
        skiplist=(".", ","),
        skiplist_sides=("query", "document") if expansion is None else ("document",),
        document_max_seqlen=20,
        similarity="meanmaxsim" if expansion is None else "maxsim",
    )
    ours = MultiVectorEmbedder(model, tokenizer, settings)
    ours.save_pretrained(tmp_path / "model")
    assert_equal(ours, peer(tmp_path / "model"))
    assert_equal(
        MultiVectorEmbedder.from_pretrained(tmp_path / "model", precision="float32"),
        peer(tmp_path / "model"),
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("expansion", [{"strategy": "fixed", "length": 16}, None])
def test_their_folder_here(
    tmp_path: Path, encoder_folder: Path, expansion: dict[str, Any] | None
) -> None:
    from sentence_transformers import MultiVectorEncoder

    prompts = {"query": "[Q] ", "document": "[D] "}
    theirs = MultiVectorEncoder(str(encoder_folder), device="cpu", prompts=prompts)
    theirs[0].query_expansion = expansion
    theirs[0].document_length = 12
    theirs.save_pretrained(str(tmp_path / "model"))
    ours = MultiVectorEmbedder.from_pretrained(tmp_path / "model", precision="float32")
    assert ours.dim == 128
    assert_equal(ours, peer(tmp_path / "model"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("expanded", [None, True, False])
def test_an_old_folder_of_pylate(
    tmp_path: Path, encoder_folder: Path, tokenizer: Tokenizer, expanded: bool | None
) -> None:
    """Two steps, and everything else in one file, as PyLate wrote it until its third version."""
    model = MultiVectorModel(Encoder.from_pretrained(encoder_folder), [projection(64, 16, seed=2)])
    folder = tmp_path / "model"
    MultiVectorEmbedder(model, tokenizer, MultiVectorSettings()).save_pretrained(folder)
    modules = json.loads((folder / "modules.json").read_text())[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    said = {
        "model_type": "ColBERT",
        "query_prefix": "[unused0]",
        "document_prefix": "[unused1]",
        "query_length": 16,
        "document_length": 20,
        "attend_to_expansion_tokens": False,
        "similarity_fn_name": "MaxSim",
    }
    said |= {} if expanded is None else {"do_query_expansion": expanded, "skiplist_words": ["."]}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    assert_equal(MultiVectorEmbedder.from_pretrained(folder, precision="float32"), peer(folder))


def test_max_sim_is_theirs() -> None:
    from sentence_transformers.util.similarity import maxsim

    draw = np.random.default_rng(0).standard_normal
    queries = [draw((n, 8), np.float32) for n in (1, 5, 3)]
    documents = [draw((n, 8), np.float32) for n in (4, 1, 9, 2)]
    np.testing.assert_allclose(
        max_sim(queries, documents), maxsim(queries, documents).numpy(), atol=1e-5
    )
