"""Sections that repeat what others have published: the same protocol, beside their figure.

Texts and weights are random, with lengths like those of the published texts, as nothing can be
downloaded where a GPU is lent. A ratio is compared as it is. A speed of another chip is scaled by
the peaks of both chips' matrix products in bfloat16, which favours a chip with little bandwidth for
its products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cuda.bench import Bench, Figures, Rows
from benchmarks.cuda.contestants import COSINE, DOCUMENT_COSINE, Contestants
from benchmarks.models import draw_weights
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.inference.reranker import Reranker
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.planning.phase import find_chip
from modernbert.tokenizer.tokenizer import Tokenizer

TOKENIZER = Path("benchmarks/finetune/start")
OURS = "h200"
_SEED = 20_261_129


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A published figure.

    figure: times as fast as something, or texts a second.
    chip: what it was reached on.
    is_ratio: whether it is compared as it is.
    """

    figure: float
    chip: str
    is_ratio: bool = True

    def beside(self, reached: float) -> Figures:
        """What was reached beside the figure, on our chip."""
        scale = 1.0 if self.is_ratio else _peak(OURS) / _peak(self.chip)
        return {
            "reached": reached,
            f"published ({find_chip(self.chip).name})": self.figure,
            "scaled by products": self.figure * scale,
            "beaten": "yes" if reached > self.figure * scale else "no",
        }


def _peak(chip: str) -> float:
    peak = find_chip(chip).bfloat16_tflops
    assert peak is not None
    return peak


# packed-encoders 0.2 (github.com/pau-mensa/flash-modernbert): the upper end of what it reports.
EAGER_QUERIES = Anchor(figure=2.6, chip="rtx5090")
COMPILED_QUERIES = Anchor(figure=1.5, chip="rtx5090")
EAGER_DOCUMENTS = Anchor(figure=2.1, chip="rtx5090")
EAGER_INDEXING = Anchor(figure=3.3, chip="rtx5090")
# text-embeddings-inference, pull request 897: float16, over HTTP.
ANSWERS = Anchor(figure=3_815.0, chip="rtx5090", is_ratio=False)
# huggingface/blog, ettin-reranker.md: bfloat16 with FlashAttention 2, at the best batch size.
PAIRS = {
    "17m": Anchor(figure=7_517.0, chip="h100", is_ratio=False),
    "150m": Anchor(figure=3_237.0, chip="h100", is_ratio=False),
}


def lognormal(mean: float, sigma: float, low: int, high: int, count: int) -> list[int]:
    """Lengths of which many are short and some are long."""
    drawn = np.random.default_rng(_SEED).lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return [int(each) for each in drawn.round().clip(low, high)]


def queries(bench: Bench) -> Rows:
    """256 queries of at most 128 tokens, 8 at a time, sorted; with graphs where they are faster."""
    lengths = lognormal(70, 0.5, 8, 128, 16 if bench.tiny else 256)
    targets = {"eager": EAGER_QUERIES, "compiled": COMPILED_QUERIES}
    return _compared(bench, lengths, 8, targets, cosine=COSINE)


def documents(bench: Bench) -> Rows:
    """256 documents of at most 2,048 tokens and about 1,500, 8 at a time, sorted."""
    return _compared(bench, _document_lengths(bench), 8, {"eager": EAGER_DOCUMENTS})


def indexing(bench: Bench) -> Rows:
    """The same documents, 128 at a time."""
    return _compared(bench, _document_lengths(bench), 128, {"eager": EAGER_INDEXING})


def _document_lengths(bench: Bench) -> list[int]:
    longest = 256 if bench.tiny else 2_048
    return lognormal(1_886, 0.8, 64, longest, 16 if bench.tiny else 256)


def _compared(
    bench: Bench,
    lengths: Sequence[int],
    rows_each: int,
    targets: Mapping[str, Anchor],
    *,
    cosine: float = DOCUMENT_COSINE,
) -> Rows:
    rows = bench.rows()
    for size in bench.sizes:
        contestants = Contestants(bench, size)
        sequences = bench.sequences(lengths, bench.config(size).vocab_size)
        rows[size] = found = contestants.compare(sequences, rows=rows_each, cosine=cosine)
        for other, anchor in targets.items():
            rows[f"{size} to {other}"] = anchor.beside(float(found[f"ours to {other}"]))
        rows |= _graphs(size, contestants.ours)
    return rows


def _graphs(size: str, encoder: Encoder) -> Rows:
    """What was measured at start-up: milliseconds of a text of so many tokens."""
    if encoder.graphs is None:
        return {}
    return {
        f"{size} {tokens} tokens": {"plain ms": 1e3 * plain, "graph ms": 1e3 * graph}
        for tokens, (plain, graph) in encoder.graphs.seconds.items()
    }


def answers(bench: Bench) -> Rows:
    """20,000 texts of about 137 tokens, as the answers of Natural Questions are, to vectors.

    Ours in one process from texts to vectors, tokenizing included; the published figure is that
    of a server, whose client was another process.
    """
    tokenizer = Tokenizer.from_pretrained(TOKENIZER)
    texts = _texts(tokenizer, lognormal(137, 0.66, 6, 512, 64 if bench.tiny else 20_000))
    encoder = draw_weights(Encoder(_config("tiny" if bench.tiny else "base"))).to(bench.device)
    settings = EmbedderSettings(pooling="cls")
    embedder = Embedder(encoder.for_inference(_precision(bench)), tokenizer, settings).compile()
    embedder.encode(texts[:512])
    seconds = bench.once(partial(embedder.encode, texts))
    few = texts[: len(texts) // 4]
    row: Figures = {
        "tokenizing texts/s": len(few) / bench.once(partial(tokenizer.encode_batch, few))
    }
    return {"base": {**ANSWERS.beside(len(texts) / seconds), **row}}


def rerank(bench: Bench) -> Rows:
    """Pairs of a question of about 10 words and such an answer, at most 512 tokens, to scores."""
    tokenizer = Tokenizer.from_pretrained(TOKENIZER)
    lengths = lognormal(137, 0.66, 6, 500, 64 if bench.tiny else 20_000)
    pairs = list(
        zip(_texts(tokenizer, [10] * len(lengths)), _texts(tokenizer, lengths), strict=True)
    )
    rows = bench.rows()
    for size, anchor in PAIRS.items():
        settings = ClassifierSettings(labels=("relevance",), problem="regression")
        model = SequenceClassifier(_config("tiny" if bench.tiny else size), settings)
        draw_weights(model).to(bench.device)
        reranker = Reranker(model.for_inference(_precision(bench)), tokenizer, max_seqlen=512)
        reranker.classifier.compile()
        reranker.scores(pairs[:512])
        seconds = bench.once(partial(reranker.scores, pairs))
        rows[size] = anchor.beside(len(pairs) / seconds)
    return rows


def _precision(bench: Bench) -> PrecisionChoice:
    return "bfloat16" if bench.is_cuda else "auto"


def _config(size: str) -> EncoderConfig:
    """A size with the vocabulary of the paper, which is larger than the tokenizer's."""
    changes: dict[str, Any] = {"layer_kinds": layer_kinds(2)} if size == "tiny" else {}
    return EncoderConfig.preset(size, **changes)


def _texts(tokenizer: Tokenizer, lengths: Sequence[int]) -> list[str]:
    """Texts of random words that are one token each, with [CLS] and [SEP] of these lengths."""
    pieces = (tokenizer.decode([token_id]) for token_id in range(tokenizer.vocab_size))
    words = [piece for piece in pieces if piece[:1] == " " and piece[1:].isalpha()]
    generator = np.random.default_rng(_SEED)
    return [
        "".join(words[each] for each in generator.integers(0, len(words), max(1, length - 2)))
        for length in lengths
    ]
