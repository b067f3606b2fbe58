"""Late chunking: equal to pooling the tokens of each piece of transformers' hidden states."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.conftest import MAX_SEQLEN, shaken

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.chunks import ChunkSettings, divided, overlapping
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

SHORT = "the square of number 3 is 9. It is not less! Is it?"
LONG = " ".join(f"the square of number {i} is {i * i}, not less." for i in range(12))


@pytest.fixture(scope="module")
def embedder(config: EncoderConfig, tokenizer: Tokenizer) -> Embedder:
    encoder = initialize(Encoder(config), seed=0)
    shaken(encoder)
    prompts = EmbedderSettings(prompts={"document": "not: "})
    return Embedder(encoder.requires_grad_(False), tokenizer, prompts)


def own_hidden(embedder: Embedder, text: str) -> np.ndarray:
    """The states of the tokens of a text that fits, without [CLS] and [SEP]."""
    use = embedder.token_use()
    (block,) = embedder.blocks(use, [text])
    return np.asarray(block[0][1:-1])


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.filterwarnings("ignore")
def test_pieces_are_pooled_from_the_states_of_transformers(
    embedder: Embedder, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    embedder.save_pretrained(tmp_path / "model")
    theirs = AutoModel.from_pretrained(tmp_path / "model").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "model")(
        SHORT, return_tensors="pt", return_offsets_mapping=True
    )
    spans = inputs.pop("offset_mapping")[0].tolist()[1:-1]
    # A token has the space before its word, and begins with the word.
    starts = [at + (SHORT[at] == " " and end > at + 1) for at, end in spans]
    with torch.no_grad():
        hidden = theirs(**inputs).last_hidden_state[0]
    borders = [(0, 28), (10, 45), (29, len(SHORT))]
    np.testing.assert_allclose(own_hidden(embedder, SHORT), hidden[1:-1].numpy(), atol=2e-5)
    found = embedder.encode_chunks(SHORT, borders=borders)
    assert not isinstance(found, list) and found.borders == borders
    for (start, end), vector in zip(borders, found.vectors, strict=True):
        chosen = [1 + place for place, at in enumerate(starts) if start <= at < end]
        np.testing.assert_allclose(vector, hidden[chosen].mean(0).numpy(), atol=2e-5)


def test_pieces_of_tokens_and_of_sentences(embedder: Embedder) -> None:
    hidden = own_hidden(embedder, SHORT)
    tokens = embedder.encode_chunks(SHORT, chunks=ChunkSettings(num_tokens=5))
    assert not isinstance(tokens, list)
    for number, vector in enumerate(tokens.vectors):
        expected = hidden[5 * number : 5 * number + 5].mean(0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert len(tokens.vectors) == -(-len(hidden) // 5)
    sentences = embedder.encode_chunks(SHORT, chunks=ChunkSettings(by="sentences", num_tokens=1))
    assert not isinstance(sentences, list)
    assert [SHORT[start:end] for start, end in sentences.borders] == [
        "the square of number 3 is 9.",
        "It is not less!",
        "Is it?",
    ]
    joined = embedder.encode_chunks(SHORT, chunks=ChunkSettings(by="sentences", num_tokens=99))
    assert not isinstance(joined, list) and joined.borders == [(0, len(SHORT))]


def test_long_texts_are_read_in_windows_and_short_ones_do_not_change_them(
    embedder: Embedder,
) -> None:
    """Of a token in two windows, the state is that of the window where it is further inside."""
    encoding = embedder.tokenizer.encode_with_offsets(LONG, special_tokens=False)
    room = MAX_SEQLEN - 2
    assert len(encoding.token_ids) > 3 * room
    states: list[np.ndarray] = []
    for begin, first, last in overlapping(len(encoding.token_ids), room):
        use = embedder.token_use()
        part = encoding.token_ids[begin : begin + room]
        batch = PackedBatch.from_sequences([embedder.tokenizer.template.frame(part)])
        with torch.no_grad():
            window = use.compute(batch)[0].numpy()[1:-1]
        states += list(window[first - begin : last - begin])
    hidden = np.stack(states)
    assert len(hidden) == len(encoding.token_ids)
    many = embedder.encode_chunks([SHORT, LONG, ""], chunks=ChunkSettings(num_tokens=20))
    assert isinstance(many, list)
    for number, vector in enumerate(many[1].vectors):
        expected = hidden[20 * number : 20 * number + 20].mean(0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert many[2].borders == [] and many[2].vectors.shape == (0, embedder.dim)


def test_options_are_those_of_encode(embedder: Embedder) -> None:
    found = embedder.encode_chunks(SHORT, truncate_dim=8, normalize_embeddings=True)
    assert not isinstance(found, list) and found.vectors.shape == (1, 8)
    np.testing.assert_allclose(np.linalg.norm(found.vectors), 1, atol=1e-5)
    prompted = embedder.encode_chunks(SHORT, prompt_name="document")
    plain = embedder.encode_chunks(SHORT)
    assert not isinstance(prompted, list) and not isinstance(plain, list)
    assert prompted.borders == plain.borders
    assert not np.allclose(prompted.vectors, plain.vectors)


def test_what_cannot_be_divided_is_refused(embedder: Embedder, tokenizer: Tokenizer) -> None:
    for borders, message in [
        ([(0, 999)], "expected a start before an end within the 51 characters"),
        ([(3, 3)], r"borders\[0\]: got 3 to 3"),
        ([(0, 9), (3, 4)], r"borders\[1\]: no token begins from 3 to 4"),
    ]:
        with pytest.raises(InputError, match=message):
            embedder.encode_chunks(SHORT, borders=borders)
    with pytest.raises(InputError, match="the pieces of 1 texts, and there are more"):
        embedder.encode_chunks([SHORT, LONG], borders=[[(0, 3)]])
    with pytest.raises(InputError, match="more texts than there are"):
        embedder.encode_chunks([SHORT], borders=[[(0, 3)], [(0, 3)]])
    first = Embedder(embedder.encoder, tokenizer, EmbedderSettings(pooling="cls"))
    with pytest.raises(InputError, match="pools by 'cls'"):
        first.encode_chunks(SHORT)


@given(st.integers(0, 300), st.integers(2, 60))
def test_windows_use_each_token_once_and_have_room(num_tokens: int, room: int) -> None:
    windows = list(overlapping(num_tokens, room))
    assert [token for _, first, last in windows for token in range(first, last)] == list(
        range(num_tokens)
    )
    for begin, first, last in windows:
        assert begin <= first <= last <= begin + room
    if num_tokens <= room:
        assert len(windows) == 1


@settings(max_examples=50)
@given(
    st.text(alphabet="ab .!?\n。é\u0301👍", max_size=60),
    st.integers(1, 12),
    st.sampled_from(["tokens", "sentences"]),
)
def test_pieces_have_every_token_once(text: str, num_tokens: int, by: str) -> None:
    starts = [place for place, letter in enumerate(text) for _ in range(1 + (letter == "👍"))]
    offsets = [(start, start + 1) for start in starts]
    way = ChunkSettings(by=by, num_tokens=num_tokens)  # type: ignore[arg-type]
    places, borders = divided(text, offsets, way)
    assert [token for first, last in places for token in range(first, last)] == list(
        range(len(offsets))
    )
    assert all(first < last for first, last in places)
    assert all(first[1] <= second[0] for first, second in pairwise(borders))
