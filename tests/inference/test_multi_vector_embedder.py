"""MultiVectorEmbedder: one vector a token, packed, and what is counted of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.conftest import shaken
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError, TruncationWarning
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder, pooled
from modernbert.inference.multi_vector_inputs import MultiVectorSettings, QueryExpansion
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = ["the square of 7 is 49, not less.", "not", "", "number 3. is not less than 9", "not"]
MARKED = {"query": "[unused0]", "document": "[unused1]"}


def make(tokenizer: Tokenizer, config: EncoderConfig, **changes: Any) -> MultiVectorEmbedder:
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    model = MultiVectorModel(encoder, [projection(64, 16, seed=1)])
    model.requires_grad_(False)
    return MultiVectorEmbedder(model, tokenizer, MultiVectorSettings(prompts=MARKED, **changes))


@pytest.fixture(scope="module")
def embedder(tokenizer: Tokenizer, config: EncoderConfig) -> MultiVectorEmbedder:
    return make(tokenizer, config, skiplist=(".", ","))


def test_documents_have_a_vector_for_each_token_but_the_skipped(
    embedder: MultiVectorEmbedder,
) -> None:
    found = embedder.encode_document(TEXTS, batch_tokens=20)
    assert [vectors.dtype for vectors in found] == [np.float32] * 5
    skipped = {embedder.tokenizer.token_to_id(word) for word in ".,"}
    for text, vectors in zip(TEXTS, found, strict=True):
        ids = embedder.tokenizer.encode("[unused1]" + text)
        batch = PackedBatch.from_sequences([ids])
        hidden = embedder.model(batch)
        expected = functional.normalize(embedder.vectors_of.projections[0](hidden), dim=-1)
        keep = [token_id not in skipped for token_id in ids]
        assert 3 <= len(vectors) == sum(keep) <= len(ids)
        np.testing.assert_allclose(vectors, expected[torch.tensor(keep)], atol=1e-5)
    assert len(found[0]) < len(embedder.tokenizer.encode("[unused1]" + TEXTS[0]))


def test_queries_keep_all_tokens(embedder: MultiVectorEmbedder) -> None:
    (vectors,) = embedder.encode_query(TEXTS[0])
    assert vectors.shape == (len(embedder.tokenizer.encode("[unused0]" + TEXTS[0])), 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("strategy", ["fixed", "min"])
def test_expansion_fills_short_queries(
    tokenizer: Tokenizer, config: EncoderConfig, strategy: Any, attend: bool
) -> None:
    expansion = QueryExpansion(length=12, strategy=strategy, attend=attend)
    embedder = make(tokenizer, config, expansion=expansion)
    found = embedder.encode_query(TEXTS) if strategy == "min" else _cut(embedder, TEXTS)
    long = len(tokenizer.encode("[unused0]" + TEXTS[0]))
    assert long > 12
    assert [len(vectors) for vectors in found[1:3]] == [12, 12]
    assert len(found[0]) == (12 if strategy == "fixed" else long)
    plain = make(tokenizer, config).encode_query("not")[0]
    same = np.allclose(found[1][: len(plain)], plain, atol=1e-5)
    assert same is not attend  # nobody sees the added tokens unless the query attends to them


def _cut(embedder: MultiVectorEmbedder, texts: list[str]) -> list[np.ndarray]:
    with pytest.warns(TruncationWarning, match="2 of 5 texts"):
        return embedder.encode_query(texts)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6),
    st.integers(1, 90),
    st.sampled_from(["query", "document"]),
)
def test_neighbours_change_nothing(
    embedder: MultiVectorEmbedder, texts: list[str], batch_tokens: int, side: Any
) -> None:
    together = [
        v for block in embedder.stream(texts, side, batch_tokens=batch_tokens) for v in block
    ]
    for text, vectors in zip(texts, together, strict=True):
        ((alone,),) = embedder.stream([text], side)
        np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_similarity_is_max_sim(embedder: MultiVectorEmbedder) -> None:
    queries, documents = embedder.encode_query(TEXTS[:2]), embedder.encode_document(TEXTS)
    scores = embedder.similarity(queries, documents)
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            assert scores[i, j] == pytest.approx((query @ document.T).max(1).sum(), abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("attend", [False, True])
def test_saved_and_loaded(
    tmp_path: Path, tokenizer: Tokenizer, config: EncoderConfig, attend: bool, precision: Any
) -> None:
    made = make(
        tokenizer,
        config,
        skiplist=(".", ","),
        expansion=QueryExpansion(length=12, strategy="min", attend=attend),
        document_max_seqlen=14,
        similarity="meanmaxsim",
    )
    made.save_pretrained(tmp_path / "model")
    loaded = MultiVectorEmbedder.from_pretrained(tmp_path / "model", precision=precision)
    assert loaded.settings == made.settings.__class__(**{**vars(made.settings), "max_seqlen": 32})
    tolerance = 1e-5 if precision == "float32" else 0.1
    for side in ("encode_query", "encode_document"):
        for a, b in zip(getattr(made, side)("not"), getattr(loaded, side)("not"), strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance)
    loaded.save_pretrained(tmp_path / "again")
    again = MultiVectorEmbedder.from_pretrained(tmp_path / "again", precision="float32")
    np.testing.assert_allclose(again.encode_query("not")[0], made.encode_query("not")[0], atol=1e-5)


def test_a_folder_is_replaced_whole_or_not_at_all(
    tmp_path: Path,
    tokenizer: Tokenizer,
    config: EncoderConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tokenizer, config).save_pretrained(tmp_path / "model")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before, other = files(), make(tokenizer, config, similarity="meanmaxsim")

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("modernbert.inference.multi_vector_embedder.write_folder", full)
        with pytest.raises(ModelFolderError, match="no space left"):
            other.save_pretrained(tmp_path / "model")
    assert files() == before
    other.save_pretrained(tmp_path / "model")
    assert (
        MultiVectorEmbedder.from_pretrained(tmp_path / "model").settings
        != make(tokenizer, config).settings
    )


def test_bad_input_is_named(
    embedder: MultiVectorEmbedder, tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    with pytest.raises(InputError, match="expected a list of texts"):
        embedder.stream("text", "query")
    with pytest.raises(InputError, match="expected a text"):
        embedder.encode_query([3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="normalize: no such option"):
        embedder.encode_query("text", normalize=True)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="fills queries up to 99 tokens, but the model reads 32"):
        make(tokenizer, config, expansion=QueryExpansion(length=99))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, 6), np.float32)
    scaled: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return scaled


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_sizes_and_lengths(count: int, factor: int, seed: int) -> None:
    before = vectors(count, seed)
    after = pooled(before, factor)
    assert after.dtype == np.float32
    assert len(after) == 1 + -(-(count - 1) // factor)
    assert (after[0] == before[0]).all()
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 10, 41])
@pytest.mark.parametrize("factor", [2, 3, 7])
def test_clusters_are_those_of_scipy(count: int, factor: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    before = 3 * vectors(count + 1)
    num = -(-count // factor)
    if count == num:
        return
    tree = hierarchy.linkage(before[1:].astype(np.float64), method="ward")
    labels = hierarchy.fcluster(tree, num, criterion="maxclust")
    expected = {tuple(np.round(before[1:][labels == each].mean(0), 4)) for each in set(labels)}
    assert {tuple(np.round(each, 4)) for each in pooled(before, factor)[1:]} == expected


def test_factor_one_and_a_single_vector_change_nothing() -> None:
    assert pooled(vectors(5), 1) is not None
    np.testing.assert_array_equal(pooled(vectors(5), 1), vectors(5))
    np.testing.assert_array_equal(pooled(vectors(1), 4), vectors(1))
