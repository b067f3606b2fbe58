"""Claim: hybrid search of an index is as fast as bm25s and faiss side by side, with equal rankings.

The peer is the obvious form: a bm25s retriever and a faiss IndexFlatIP of the same texts and
vectors, the best 100 of each, and their reciprocal ranks added in a dictionary. Texts are made of
words whose frequencies fall as those of a language, or read from a file, one a line; vectors are
random.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.timing import by_both_clocks
from modernbert.inference.index import Index
from modernbert.inference.similarity import Fusion

DEPTH, CONSTANT, TOP_K = 100, 60, 10
Scores = list[list[float]]


def made_texts(count: int, seed: int) -> list[str]:
    """Texts of 5 to 30 words out of 20,000, by Zipf's law."""
    draw = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 20_001)
    words = draw.choice(20_000, size=(count, 30), p=shares / shares.sum())
    lengths = draw.integers(5, 31, count)
    return [
        " ".join(f"w{word}x" for word in row[:length])
        for row, length in zip(words.tolist(), lengths, strict=True)
    ]


class Ours:
    """An index of both."""

    def __init__(self, folder: Path, vectors: np.ndarray, texts: list[str]) -> None:
        self.index = Index.build(folder, [vectors], texts=texts, bm25="none", similarity="dot")

    def search(self, queries: np.ndarray, asked: list[str]) -> list[list[int]]:
        """The rows of the best documents of each query."""
        fusion = Fusion(depth=DEPTH, constant=CONSTANT)
        found = self.index.search(queries, TOP_K, texts=asked, fusion=fusion)
        return [[hit.row for hit in hits] for hits in found]

    def scores(self, queries: np.ndarray, asked: list[str]) -> Scores:
        """The scores of both rankings, before they are joined, best first."""
        by_vectors = self.index.search(queries, DEPTH)
        return [
            [hit.score for hit in hits]
            for hits in (*by_vectors, *self.index.search(top_k=DEPTH, texts=asked))
        ]


class SideBySide:
    """bm25s and faiss, and reciprocal ranks that are added in a dictionary."""

    def __init__(self, vectors: np.ndarray, texts: list[str]) -> None:
        import bm25s
        import faiss

        self.flat = faiss.IndexFlatIP(vectors.shape[1])
        self.flat.add(vectors)
        self.tokenize = partial(bm25s.tokenize, stopwords=None, show_progress=False)
        self.retriever = bm25s.BM25()
        self.retriever.index(self.tokenize(texts), show_progress=False)

    def search(self, queries: np.ndarray, asked: list[str]) -> list[list[int]]:
        """As `Ours.search`."""
        _, near = self.flat.search(queries, DEPTH)
        found = self.retriever.retrieve(self.tokenize(asked), k=DEPTH, show_progress=False)
        answers = []
        for rankings in zip(near.tolist(), found.documents.tolist(), strict=True):
            sums: dict[int, float] = {}
            for ranking in rankings:
                for rank, row in enumerate(ranking, 1):
                    sums[row] = sums.get(row, 0.0) + 1 / (CONSTANT + rank)
            answers.append(sorted(sums, key=lambda row: -sums[row])[:TOP_K])
        return answers

    def scores(self, queries: np.ndarray, asked: list[str]) -> Scores:
        """As `Ours.scores`; documents without a word of the query are left out."""
        by_vectors, _ = self.flat.search(queries, DEPTH)
        found = self.retriever.retrieve(self.tokenize(asked), k=DEPTH, show_progress=False)
        return [[each for each in row if each] for row in (*by_vectors.tolist(), *found.scores)]


def agreement(these: Scores, those: Scores) -> float:
    """The share of rankings whose scores are equal; documents of one score may change places."""
    pairs = zip(these, those, strict=True)
    return float(np.mean([len(a) == len(b) and np.allclose(a, b, rtol=1e-3) for a, b in pairs]))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the rankings, then time everyone in turn, one query and all queries at a time."""
    if options.texts is None:
        texts = made_texts(options.documents, 0)
    else:
        texts = options.texts.read_text(encoding="utf-8").splitlines()[: options.documents]
    draw, count = np.random.default_rng(1), options.queries
    vectors = draw.standard_normal((len(texts), options.dim), np.float32)
    chosen = draw.choice(len(texts), count, replace=False)
    asked = [" ".join(texts[row].split()[:4]) for row in chosen.tolist()]
    queries = vectors[chosen] + draw.standard_normal((count, options.dim), np.float32)
    sides: dict[str, Ours | SideBySide] = {
        "ours": Ours(folder / "both.index", vectors, texts),
        "bm25s + faiss": SideBySide(vectors, texts),
    }
    scores = [each.scores(queries, asked) for each in sides.values()]
    answers = [each.search(queries, asked) for each in sides.values()]
    same = [len(set(a) & set(b)) / TOP_K for a, b in zip(*answers, strict=True)]
    whole = by_both_clocks(
        {
            name: [partial(each.search, queries, asked)] * options.rounds
            for name, each in sides.items()
        }
    )
    ones = by_both_clocks(
        {
            name: [partial(each.search, queries[n : n + 1], asked[n : n + 1]) for n in range(count)]
            * options.rounds
            for name, each in sides.items()
        }
    )
    speeds = {
        name: {
            "queries_per_second": round(1e3 * count / each["median_wall_ms"], 1),
            "queries_per_cpu_second": round(1e3 * count / each["median_cpu_ms"], 1),
            **ones[name],
        }
        for name, each in whole.items()
    }
    return {
        "documents": len(texts),
        "dim": options.dim,
        "queries": count,
        "texts": "made" if options.texts is None else options.texts.name,
        "equal_rankings": round(agreement(*scores), 4),
        "same_documents": round(float(np.mean(same)), 4),
        **speeds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = command.parser(
        __doc__,
        rounds=3,
        documents=(100_000, "how many"),
        queries=(64, "how many"),
        dim=(256, "numbers of a vector"),
        texts=(Path, "a text a line, in place of those made here"),
    ).parse_args(arguments)
    with TemporaryDirectory() as folder:
        print(command.measured("hybrid", partial(measure, Path(folder)), options))


if __name__ == "__main__":
    main()
