"""The texts that are sent, and the model that is served."""

import json
import lzma
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.models import CACHE, draw_weights
from benchmarks.serving.load import Ask, embed_ask
from modernbert.files import new_folder
from modernbert.inference.embedder import Embedder
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.tokenizer.tokenizer import Tokenizer

_LONG_TOKENS = 8_192
_SHORT_TOKENS = (16, 64)
# Sentences, abstracts and reviews: most texts are short, and a few long.
_SOURCES = (
    ("sst2/dev.jsonl.xz", 2),
    ("nfcorpus/test/corpus.jsonl.xz", 1),
    ("imdb/test.jsonl.xz", 2),
)


def model_folder(
    data: Path,
    *,
    size: str,
    num_layers: int | None,
    cache: Path = CACHE,
    is_reranker: bool = False,
) -> Path:
    """An embedder or a reranker of a size with random weights, made once.

    data: the folder of real corpora, which has the published tokenizer.
    """
    layers = num_layers or len(PRESETS[size]["layer_kinds"])
    folder = cache / f"{'reranking' if is_reranker else 'serving'}-{size}-{layers}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = EncoderConfig.preset(size, layer_kinds=layer_kinds(layers))
    tokenizer = Tokenizer.from_file(data / "tokenizer" / "modernbert.json")
    with new_folder(folder) as made:
        if is_reranker:
            head = ClassifierSettings(labels=("LABEL_0",), pooling="mean", problem="regression")
            draw_weights(SequenceClassifier(config, head)).save_pretrained(made)
            tokenizer.save_pretrained(made)
        else:
            Embedder(draw_weights(Encoder(config)), tokenizer).save_pretrained(made)
    return folder


def ragged(data: Path, tokenizer: Tokenizer, *, count: int) -> list[Ask]:
    """Requests of one real text each, in random order."""
    return [_ask(text, tokenizer) for text in ragged_texts(data, count=count)]


def ragged_texts(data: Path, *, count: int) -> list[str]:
    """Real texts of all lengths, in random order.

    data: the folder of real corpora.
    """
    shares = sum(share for _, share in _SOURCES)
    texts: list[str] = []
    for name, share in _SOURCES:
        texts += islice(_texts(data / name), count * share // shares + 1)
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[place] for place in order]


def requests(data: Path, tokenizer: Tokenizer, *, num_texts: int) -> tuple[list[Ask], list[Ask]]:
    """Four requests of many texts to embed, and five of a query and 100 texts to rerank."""
    texts = ragged_texts(data, count=4 * num_texts)
    lengths = map(len, tokenizer.encode_batch(texts))
    kept = [pair for pair in zip(texts, lengths, strict=True) if pair[1] < 1_024]
    many = [
        embed_ask([text for text, _ in part], sum(n for _, n in part))
        for part in (kept[start::4] for start in range(4))
    ]
    passages = [text for text, length in kept if length < 256]
    reranks = [
        {"query": passages[number], "texts": passages[number + 1 : number + 101]}
        for number in range(5)
    ]
    return many, [Ask("/rerank", json.dumps(each).encode(), 0) for each in reranks]


def short_and_long(
    data: Path, tokenizer: Tokenizer, *, num_short: int, num_long: int
) -> tuple[list[Ask], list[Ask]]:
    """Beginnings of books, of 16 to 64 tokens, and stretches of them, of 8,192."""
    room = _LONG_TOKENS - 64  # decoded and encoded again, a text may have a few tokens more
    starts = range(0, num_long * 997, 997)
    ids: list[int] = []
    for book in _texts(data / "books/dev.jsonl.xz"):
        ids += tokenizer.encode(book, special_tokens=False)
        if len(ids) >= max(starts[-1] + room, num_short * 71 + max(_SHORT_TOKENS)):
            break
    long = [ids[start : start + room] for start in starts]
    lengths = np.random.default_rng(0).integers(*_SHORT_TOKENS, num_short)
    short = [ids[place * 71 :][: int(length)] for place, length in enumerate(lengths)]
    return (
        [_ask(tokenizer.decode(each), tokenizer) for each in short],
        [_ask(tokenizer.decode(each), tokenizer) for each in long],
    )


def _ask(text: str, tokenizer: Tokenizer) -> Ask:
    ids: Sequence[int] = tokenizer.encode(text)
    if len(ids) > _LONG_TOKENS:
        text = tokenizer.decode(ids[1 : _LONG_TOKENS - 64])
    return embed_ask(text, min(len(ids), _LONG_TOKENS))


def _texts(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
