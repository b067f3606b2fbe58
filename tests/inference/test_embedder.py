"""Embedder: equal to the model itself, whatever the neighbours, and to sentence-transformers."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.conftest import shaken

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError, ModelFolderError, TruncationWarning
from modernbert.inference.batching import Progress
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.initialize import initialize
from modernbert.model.pooling import pool
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = ["the square of number 3 is 9", "not", "", "number 7 is not less than the square of 2"]


@pytest.fixture(scope="module")
def encoder(config: EncoderConfig) -> Encoder:
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    return encoder


@pytest.fixture(scope="module")
def embedder(encoder: Encoder, tokenizer: Tokenizer) -> Embedder:
    return Embedder(encoder, tokenizer)


@pytest.fixture(scope="module")
def folder(
    encoder: Encoder, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    prompts = {"query": "find: ", "passage": "read: "}
    embedder = Embedder(encoder, tokenizer, EmbedderSettings(prompts=prompts, pooling="cls"))
    embedder.save_pretrained(folder := tmp_path_factory.mktemp("embedder"))
    return folder


def with_settings(embedder: Embedder, **changes: object) -> Embedder:
    changed = replace(embedder.settings, **changes)  # type: ignore[arg-type]
    return Embedder(embedder.encoder, embedder.tokenizer, changed)


def alone(embedder: Embedder, text: str) -> np.ndarray:
    batch = PackedBatch.from_sequences([embedder.tokenizer.encode(text)])
    with torch.no_grad():
        hidden = embedder.encoder(batch)
    return pool(hidden, batch, embedder.settings.pooling)[0].numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_are_the_models(embedder: Embedder, pooling: str) -> None:
    embedder = with_settings(embedder, pooling=pooling)
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (4, 64) and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, alone(embedder, text), atol=1e-5)
    np.testing.assert_allclose(embedder.encode(TEXTS[0]), vectors[0], atol=1e-5)


WORDS = st.lists(st.sampled_from([" number", " square", " 7", "is", ","]), max_size=25)


@pytest.fixture(scope="module")
def packed(folder: Path) -> dict[str, Embedder]:
    return {p: Embedder.from_pretrained(folder, precision=p) for p in ("float32", "bfloat16")}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(WORDS.map("".join), min_size=1, max_size=12),
    batch_tokens=st.integers(1, 200),
)
def test_neighbours_change_nothing(
    packed: dict[str, Embedder], precision: str, texts: list[str], batch_tokens: int
) -> None:
    embedder = packed[precision]
    together = embedder.encode(texts, batch_tokens=batch_tokens)
    each = np.stack([embedder.encode(text) for text in texts])
    np.testing.assert_allclose(together, each, atol=1e-5 if precision == "float32" else 5e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_on_cuda(folder: Path) -> None:
    """Batches of many shapes, launched one ahead."""
    texts = TEXTS * 20
    plain = Embedder.from_pretrained(folder, precision="bfloat16")
    compiled = Embedder.from_pretrained(folder, precision="bfloat16").compile()
    assert plain.device.type == compiled.device.type == "cuda"
    expected = plain.encode(texts)
    for batch_tokens in (None, 50, 200):
        vectors = compiled.encode(texts, batch_tokens=batch_tokens)
        np.testing.assert_allclose(vectors, expected, atol=0.05)


def test_compiling_changes_nothing_on_a_cpu(embedder: Embedder) -> None:
    expected = embedder.encode(TEXTS)
    assert embedder.compile() is embedder
    np.testing.assert_array_equal(embedder.encode(TEXTS), expected)


def test_a_generator_is_streamed(embedder: Embedder) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "not"

    blocks = embedder.stream(texts())
    first = next(blocks)
    assert len(first) == taken <= 4096
    np.testing.assert_allclose(first[[0, -1]], embedder.encode(["not", "not"]), atol=1e-5)


def test_options(embedder: Embedder) -> None:
    plain = embedder.encode(TEXTS)
    norms = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(
        embedder.encode(TEXTS, normalize_embeddings=True), plain / norms, atol=1e-6
    )
    np.testing.assert_allclose(embedder.encode(TEXTS, truncate_dim=7), plain[:, :7], atol=1e-6)
    short = embedder.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    tensor = embedder.encode(TEXTS, convert_to_tensor=True)
    assert torch.equal(tensor, torch.from_numpy(plain))
    assert embedder.encode([]).shape == (0, 64)
    assert embedder.encode([], truncate_dim=7).shape == (0, 7)


def test_a_model_that_normalizes_does_so_before_the_cut(embedder: Embedder) -> None:
    plain = embedder.encode(TEXTS)
    vectors = with_settings(embedder, normalize=True).encode(TEXTS, truncate_dim=7)
    expected = (plain / np.linalg.norm(plain, axis=1, keepdims=True))[:, :7]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_prompts(embedder: Embedder) -> None:
    prompted = with_settings(
        embedder, prompts={"query": "not ", "corpus": "is "}, default_prompt_name="query"
    )
    query, document, plain = (
        embedder.encode([prompt + text for text in TEXTS]) for prompt in ("not ", "is ", "")
    )
    for got, expected in (
        (prompted.encode_query(TEXTS), query),
        (prompted.encode_document(TEXTS), document),
        (prompted.encode(TEXTS), query),
        (prompted.encode(TEXTS, prompt_name="corpus"), document),
        (prompted.encode(TEXTS, prompt=""), plain),
        (prompted.encode_query(TEXTS, prompt="is "), document),
        (embedder.encode_query(TEXTS), plain),
        (embedder.encode_document(TEXTS), plain),
    ):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    with pytest.raises(InputError, match=r"^prompt_name: got 'no', but .* are: query, corpus"):
        prompted.encode(TEXTS, prompt_name="no")


def test_a_prompt_that_is_not_pooled(embedder: Embedder) -> None:
    unpooled = with_settings(embedder, pool_prompt=False)
    prompt = "number 7 "
    num_tokens = len(embedder.tokenizer.encode(prompt)) - 1
    for text, vector in zip(TEXTS, unpooled.encode(TEXTS, prompt=prompt), strict=True):
        batch = PackedBatch.from_sequences([embedder.tokenizer.encode(prompt + text)])
        with torch.no_grad():
            hidden = embedder.encoder(batch)
        expected = hidden[num_tokens:].mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_long_texts_are_cut_and_counted_once(embedder: Embedder) -> None:
    long = "number " * 40
    told: list[Progress] = []
    with pytest.warns(TruncationWarning, match=r"^2 of 3 texts are longer than 32 tokens") as said:
        vectors = embedder.encode([long, "not", long], on_progress=told.append)
    assert len(said) == 1 and said[0].filename == __file__
    assert told[-1].truncated == 2
    cut = embedder.tokenizer.encode(long, max_seqlen=32)
    batch = PackedBatch.from_sequences([cut])
    with torch.no_grad():
        expected = embedder.encoder(batch).mean(0).numpy()
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


def test_what_cannot_be(embedder: Embedder, tokenizer: Tokenizer) -> None:
    for options, message in (
        ({"truncate_dim": 65}, "^truncate_dim: got 65, expected 1 to 64"),
        ({"truncate_dim": 0}, "^truncate_dim: got 0, expected 1 to 64"),
        ({"batch_tokens": 0}, "^batch_tokens: got 0"),
        ({"batch": 3}, "^batch: no such option; expected one of prompt, "),
    ):
        with pytest.raises(InputError, match=message):
            embedder.encode(TEXTS, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^texts: got int, expected a list of texts"):
        embedder.encode(7)  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"^texts\[0\]: got b'x', expected a text"):
        embedder.encode([b"x"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"^max_seqlen: got 33, expected 4 to 32"):
        with_settings(embedder, max_seqlen=33)
    ids = {f"{name}_token_id": 0 for name in ("unk", "cls", "sep", "pad", "mask")}
    small = Encoder(replace(embedder.encoder.config, vocab_size=320, **ids))
    with pytest.raises(InputError, match=r"^tokenizer: its vocab_size is 448, .* model's is 320"):
        Embedder(small, tokenizer)
    with pytest.raises(ConfigError, match=r"^pooling: got 'median', expected one of cls, max"):
        EmbedderSettings(pooling="median")  # type: ignore[arg-type]


def test_similarity_is_the_models_own(embedder: Embedder) -> None:
    vectors = embedder.encode(TEXTS)
    dots = with_settings(embedder, similarity="dot").similarity(vectors, vectors[:2])
    np.testing.assert_allclose(dots.numpy(), vectors @ vectors[:2].T, rtol=1e-5)
    assert embedder.similarity(vectors[0], vectors[0]).item() == pytest.approx(1)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_from_a_folder_and_back(
    folder: Path, tmp_path: Path, embedder: Embedder, precision: str
) -> None:
    loaded = Embedder.from_pretrained(folder, precision=precision)  # type: ignore[arg-type]
    expected = with_settings(embedder, pooling="cls").encode(TEXTS)
    vectors = loaded.encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=5e-2 if precision == "auto" else 1e-5)
    loaded.save_pretrained(tmp_path / "again")
    again = Embedder.from_pretrained(tmp_path / "again", precision=precision)  # type: ignore[arg-type]
    assert again.settings == loaded.settings
    assert np.array_equal(again.encode(TEXTS), vectors)


def test_a_plain_model_folder(classifier_folder: Path) -> None:
    assert Embedder.from_pretrained(classifier_folder).settings.pooling == "mean"
    assert Embedder.from_pretrained(classifier_folder, pooling="cls").settings.pooling == "cls"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no such folder"):
        Embedder.from_pretrained(tmp_path / "nowhere")


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.filterwarnings("default")
def test_as_sentence_transformers(
    embedder: Embedder, tmp_path: Path, pooling: str, normalize: bool
) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "not ", "document": "is "}
    ours = with_settings(embedder, pooling=pooling, normalize=normalize, prompts=prompts)
    ours.save_pretrained(tmp_path / "ours")
    theirs = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    texts = [*TEXTS, "number " * 40]
    for name in ("encode", "encode_query", "encode_document"):
        with pytest.warns(TruncationWarning):
            expected = getattr(ours, name)(texts)
        np.testing.assert_allclose(getattr(theirs, name)(texts), expected, atol=1e-5)
    theirs.save(str(tmp_path / "theirs"))
    back = Embedder.from_pretrained(tmp_path / "theirs", precision="float32")
    np.testing.assert_allclose(back.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)
    assert back.max_seqlen == ours.max_seqlen
