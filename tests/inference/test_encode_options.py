"""`encode` takes the arguments of sentence-transformers and gives what it gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.inference.conftest import shaken

from modernbert.errors import InputError
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = [f"the square of number {i} is {i * i}" + ", not less" * (i % 5) for i in range(120)]
PROMPTS = {"query": "find: ", "document": "read: "}


@pytest.fixture(scope="module")
def folder(
    config: EncoderConfig, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    settings = EmbedderSettings(prompts=PROMPTS, default_prompt_name="document", pool_prompt=False)
    embedder = Embedder(encoder, tokenizer, settings)
    embedder.save_pretrained(folder := tmp_path_factory.mktemp("embedder"))
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Embedder:
    return Embedder.from_pretrained(folder, precision="float32")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu")


def same(ours: Any, theirs: Any, atol: float = 1e-4) -> None:
    """Of the same types, shapes and values, through lists."""
    assert type(ours) is type(theirs)
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, atol)
        return
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=atol)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[3]], ids=["many", "one"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt_name": "query"},
        {"prompt": "which: ", "prompt_name": "query"},
        {"batch_size": 7, "device": "cpu"},
        {"normalize_embeddings": True, "truncate_dim": 10},
        {"convert_to_numpy": False},
        {"convert_to_tensor": True},
        {"convert_to_tensor": True, "convert_to_numpy": True},
        {"output_value": "token_embeddings"},
    ],
    ids=str,
)
def test_the_same_as_theirs(ours: Embedder, theirs: Any, texts: Any, options: Any) -> None:
    for call in ("encode", "encode_query", "encode_document"):
        same(getattr(ours, call)(texts, **options), getattr(theirs, call)(texts, **options))


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_precisions(ours: Embedder, theirs: Any, precision: Any) -> None:
    """Two floats on either side of a border may differ by one step, and so by one bit."""
    found = ours.encode(TEXTS, precision=precision)
    expected = theirs.encode(TEXTS, precision=precision)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if "binary" in precision:
        bits = np.unpackbits((found ^ expected).view(np.uint8))
        assert bits.mean() < 1e-3
    else:
        away = np.abs(found.astype(np.float64) - expected)
        assert away.max() <= 1 and (precision == "float32" or away.mean() < 0.01)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_one_text_has_no_range(ours: Embedder, theirs: Any, precision: Any) -> None:
    with pytest.raises(InputError, match="one text has none; encode several at once"):
        ours.encode(TEXTS[0], precision=precision)
    with pytest.raises(ValueError, match="single"):
        theirs.encode(TEXTS[0], precision=precision)
    assert ours.encode([], precision=precision).shape == (0, ours.dim)


def test_everything_of_a_text(ours: Embedder, theirs: Any) -> None:
    found, expected = (each.encode(TEXTS[:9], output_value=None) for each in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        length = int(other["attention_mask"].sum()) or len(one["input_ids"])
        assert one["input_ids"].tolist() == other["input_ids"][: len(one["input_ids"])].tolist()
        assert length <= len(one["input_ids"]) == len(one["token_embeddings"])
        same(one["sentence_embedding"], other["sentence_embedding"])
    single = ours.encode(TEXTS[0], output_value=None, truncate_dim=4)
    assert single["sentence_embedding"].shape == (4,)


def test_batch_size_bounds_the_tokens_at_once(ours: Embedder) -> None:
    largest = []
    compute = ours.encoder.forward

    def watched(batch: Any) -> torch.Tensor:
        largest.append(batch.total_tokens)
        return compute(batch)

    ours.encoder.forward = watched  # type: ignore[method-assign]
    try:
        ours.encode(TEXTS, batch_size=2)
    finally:
        ours.encoder.forward = compute  # type: ignore[method-assign]
    assert max(largest) <= 2 * ours.max_seqlen < sum(largest)


def test_a_bar_is_shown_and_removed(ours: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    ours.encode(TEXTS, batch_size=1, show_progress_bar=True, on_progress=seen.append)
    shown = capsys.readouterr().err
    assert "encoding |" in shown and shown.endswith(" \r") and len(seen) > 1
    ours.encode(TEXTS, show_progress_bar=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_value": "sentences"}, "output_value: got 'sentences', expected one of sentence_"),
        ({"precision": "int4"}, "precision: got 'int4', expected one of float32, int8"),
        ({"device": "cuda"}, "device: got 'cuda', but the model is on 'cpu'"),
        ({"device": ["cpu", "cpu"]}, "device: got "),
        ({"batch_size": 0}, "batch_size: got 0, expected 1 or more"),
        ({"normalise": True}, "normalise: no such option; expected one of prompt"),
    ],
)
def test_bad_options(ours: Embedder, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ours.encode(TEXTS, **options)


def test_options_of_results_have_no_effect_on_a_stream(ours: Embedder) -> None:
    with pytest.raises(InputError, match="convert_to_tensor: no such option"):
        ours.stream(TEXTS, convert_to_tensor=True)  # type: ignore[call-arg]
