"""The labelled sets of the comparison, cut down once to files that everyone reads.

Every set is a fixed subsample, so that the whole table fits into 90 minutes on two cores. Long
texts come from IMDB whole, and from books cut to between about 256 and 8,192 tokens, whose author
is the label; the excerpts to test on are from other books of the same authors.
"""

import json
import lzma
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modernbert.files import write_whole

Verb = Literal["classify", "regress", "tag", "answer", "retrieve"]
Row = Mapping[str, Any]

NUM_AUTHORS = 8
_CHARACTERS_A_TOKEN = 4
_EXCERPT_TOKENS = (256, 8_192)
_LONG_BOOK_CHARACTERS = 200_000
_MARGIN_CHARACTERS = 5_000


@dataclass(frozen=True)
class Workload:
    """One labelled set and how to train on it; the same for everyone.

    metric: the one that decides, higher is better.
    num_train, num_test: rows of the subsamples; None for all.
    max_tokens: longer texts are cut.
    """

    name: str
    verb: Verb
    metric: str
    num_train: int | None
    num_test: int | None
    epochs: int
    batch_size: int = 32
    max_tokens: int = 512

    @property
    def is_long(self) -> bool:
        """Whether its texts are long and ragged."""
        return self.name in ("imdb", "authors")


WORKLOADS = (
    Workload("sst2", "classify", "accuracy", 8_000, None, 2),
    Workload("cola", "classify", "matthews", None, None, 2),
    Workload("mrpc", "classify", "accuracy", None, None, 2),
    Workload("rte", "classify", "accuracy", None, None, 2),
    Workload("stsb", "regress", "spearman", None, None, 2),
    Workload("conll2003", "tag", "entity_f1", 6_000, 1_500, 3),
    Workload("subjqa", "answer", "f1", 2_000, 500, 2),
    Workload("nfcorpus", "retrieve", "ndcg@10", 2_000, None, 1),
    Workload("imdb", "classify", "accuracy", 800, 800, 2, batch_size=16, max_tokens=2_048),
    Workload("authors", "classify", "accuracy", 24, 16, 1, batch_size=4, max_tokens=8_192),
)


def prepare(workload: Workload, data: Path, folder: Path) -> Path:
    """Write `train.jsonl` and `test.jsonl` of a set below `folder`, once.

    data: the folder with one folder for each set.
    Retrieval adds `corpus.jsonl`, `queries.jsonl` and `qrels.jsonl` of the test.
    """
    made = folder / workload.name
    if not (made / "test.jsonl").exists():
        made.mkdir(parents=True, exist_ok=True)
        for name, rows in _PREPARATIONS.get(workload.name, _labelled)(workload, data).items():
            write_whole(made / f"{name}.jsonl", _lines(rows))
    return made


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, under xz or not."""
    if path.suffix == ".xz":
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _labelled(workload: Workload, data: Path) -> dict[str, Sequence[Row]]:
    folder = data / workload.name
    test = folder / ("test.jsonl.xz" if workload.name == "imdb" else "dev.jsonl.xz")
    return {
        "train": _subsample(read(folder / "train.jsonl.xz"), workload.num_train),
        "test": _subsample(read(test), workload.num_test),
    }


def _subsample(rows: Sequence[Row], number: int | None) -> list[Row]:
    """That many rows, the same each time; all of them in their order when None."""
    if number is None or number >= len(rows):
        return list(rows)
    chosen = np.random.default_rng(0).permutation(len(rows))[:number]
    return [rows[index] for index in chosen]


def _authors(workload: Workload, data: Path) -> dict[str, Sequence[Row]]:
    """Excerpts of the authors with the most long books; every third of these is for the test."""
    by_author: dict[str, list[str]] = {}
    for book in read(data / "books" / "train.jsonl.xz"):
        if len(book["text"]) > _LONG_BOOK_CHARACTERS:
            by_author.setdefault(book["author"], []).append(book["text"])
    most = Counter({author: len(books) for author, books in by_author.items()})
    chosen = {author: by_author[author] for author, _ in most.most_common(NUM_AUTHORS)}
    test = {author: books[::3] for author, books in chosen.items()}
    train = {
        author: [b for b in books if b not in test[author]] for author, books in chosen.items()
    }
    random = np.random.default_rng(0)
    return {
        "train": list(_excerpts(train, workload.num_train or 0, random)),
        "test": list(_excerpts(test, workload.num_test or 0, random)),
    }


def _excerpts(
    books: Mapping[str, Sequence[str]], number: int, random: np.random.Generator
) -> Iterator[Row]:
    """As many of each author, from anywhere but a book's first and last pages."""
    authors = sorted(books)
    for index in range(number):
        author = authors[index % len(authors)]
        text = books[author][random.integers(len(books[author]))]
        length = int(random.integers(*_EXCERPT_TOKENS)) * _CHARACTERS_A_TOKEN
        start = int(random.integers(_MARGIN_CHARACTERS, len(text) - _MARGIN_CHARACTERS - length))
        yield {"text": text[start : start + length], "label": author}


def _retrieval(workload: Workload, data: Path) -> dict[str, Sequence[Row]]:
    folder = data / "nfcorpus"
    texts = {row["_id"]: row["text"] for row in read(folder / "train" / "corpus.jsonl.xz")}
    queries = {row["_id"]: row["text"] for row in read(folder / "train" / "queries.jsonl.xz")}
    pairs = [
        {"query": queries[row["query-id"]], "positive": texts[row["corpus-id"]]}
        for row in read(folder / "train" / "qrels.jsonl.xz")
    ]
    test = {
        name: read(folder / "test" / f"{name}.jsonl.xz") for name in ("corpus", "queries", "qrels")
    }
    return {"train": _subsample(pairs, workload.num_train), **test, "test": test["queries"]}


_PREPARATIONS = {"authors": _authors, "nfcorpus": _retrieval}


def _lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
