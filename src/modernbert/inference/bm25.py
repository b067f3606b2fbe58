"""BM25: documents ranked by the words that they share with a query, by the library bm25s.

bm25s stores what each word adds to the score of each document. These numbers depend on all
documents: on how many have the word, and on how long they are. Where an index has grown or lost
documents, its parts were computed from other documents than it has now. `rank_by_words` corrects
the numbers of a query's words, so that the scores are those of an index that is built anew.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.inference.index_files import VectorFile, read_vectors

PLAIN = "none"
"""The language whose words are taken as they are: no stop words, no stems."""

_WORD = re.compile(r"\w\w+")
_LENGTHS_FILE = "lengths.npy"
_STOP_WORDS = {"english": "STOPWORDS_EN"}


def words_of(language: str) -> Callable[[str], Iterator[str]]:
    """Find out how texts of a language become words: lower case, without stop words, stemmed.

    Args:
        language: A language that Snowball has a stemmer for, such as english, or "none" for words
            as they are.

    Raises:
        InputError: The language is not known.
        MissingPackageError: bm25s or PyStemmer is not installed.
    """
    if language == PLAIN:
        return lambda text: (match[0] for match in _WORD.finditer(text.lower()))
    stemmers = import_extra("Stemmer")
    if language not in stemmers.algorithms():
        known = ", ".join((PLAIN, *stemmers.algorithms()))
        raise InputError(f"bm25: got the language {language!r}, expected one of {known}")
    name = _STOP_WORDS.get(language, f"STOPWORDS_{language.upper()}")
    stop_words = frozenset(getattr(import_extra("bm25s.stopwords"), name, ()))
    stem = stemmers.Stemmer(language).stemWord

    def split(text: str) -> Iterator[str]:
        words = (match[0] for match in _WORD.finditer(text.lower()))
        return (stem(word) for word in words if word not in stop_words)

    return split


class _Postings(NamedTuple):
    """The documents that have a word, (n,) int32, and what it adds to their scores, float32."""

    rows: np.ndarray
    scores: np.ndarray


class Bm25:
    """BM25 over some documents, in memory or mapped from a folder that bm25s reads as well.

    Make one with `Bm25.build`, and open a stored one with `Bm25.open`.

    Args:
        retriever: A `bm25s.BM25` with an index.
        lengths: (num_documents,) int32, how many words each document has.
        language: As in `words_of`.
    """

    def __init__(self, retriever: Any, lengths: np.ndarray, language: str) -> None:
        self.retriever, self.lengths, self.language = retriever, lengths, language
        self.words_of = words_of(language)

    @classmethod
    def build(cls, texts: Iterable[str], language: str = "english") -> "Bm25":
        """Count the words of all texts.

        Args:
            texts: The documents; their words are held in memory, with 4 bytes for each.
            language: As in `words_of`.

        Raises:
            InputError: The language is not known.
        MissingPackageError: bm25s or PyStemmer is not installed.
        """
        split = words_of(language)
        vocabulary: dict[str, int] = {"": 0}  # which no document has, for queries without words
        documents = [
            array("i", (vocabulary.setdefault(word, len(vocabulary)) for word in split(text)))
            for text in texts
        ]
        retriever = import_extra("bm25s").BM25()
        with np.errstate(invalid="ignore"):  # where no document has a word
            retriever.index((documents, vocabulary), show_progress=False)
        return cls(retriever, np.array([len(each) for each in documents], np.int32), language)

    @classmethod
    def open(cls, folder: Path, language: str) -> "Bm25":
        """Open what `save` has written, mapped into memory.

        Raises:
            InputError: A file is missing or damaged.
            MissingPackageError: bm25s is not installed.
        """
        library = import_extra("bm25s")
        lengths = read_vectors(folder / _LENGTHS_FILE)[:, 0]
        try:
            return cls(library.BM25.load(folder, mmap=True), lengths, language)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder}: not a readable BM25 index: {error}") from None

    def save(self, folder: Path) -> None:
        """Write it into a folder that is made."""
        self.retriever.save(folder, show_progress=False)
        with VectorFile(folder / _LENGTHS_FILE, 1, np.int32) as file:
            file.append(self.lengths[:, None])

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def average_length(self) -> float:
        """The mean number of words, which the stored scores depend on."""
        return float(self.lengths.mean())

    def postings(self, word: str) -> _Postings:
        """Find the documents that have a word."""
        stored = self.retriever.scores
        token_id = self.retriever.vocab_dict.get(word, 0)
        place = slice(*stored["indptr"][token_id : token_id + 2].tolist())
        return _Postings(stored["indices"][place], stored["data"][place])

    def corrected(self, found: _Postings, num_having: int, average: "_Average") -> np.ndarray:
        """Compute what a word adds to scores where the documents are others than at the time.

        Args:
            found: The postings of the word.
            num_having: How many documents have it now.
            average: What all documents are like now.
        """
        frequency = found.scores / _rarity(len(found.rows), len(self))
        k1, b = self.retriever.k1, self.retriever.b
        lengths = self.lengths[found.rows]
        before = k1 * (1 - b + b * lengths / self.average_length)
        now = k1 * (1 - b + b * lengths / average.length)
        count = before * frequency / (1 - frequency)  # of the word in each document
        weight = _rarity(num_having, average.num_documents)
        scores: np.ndarray = (weight * count / (now + count)).astype(np.float32)
        return scores


class _Average(NamedTuple):
    """How many documents there are, and how many words they have in the mean."""

    num_documents: int
    length: float


def rank_by_words(
    parts: Sequence[Bm25],
    queries: Iterable[str],
    top_k: int,
    dead: Sequence[np.ndarray | None] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the documents that share the most telling words with each query.

    Args:
        parts: The documents, perhaps in several parts.
        queries: The texts of the queries.
        top_k: How many documents; fewer are found where fewer share a word with the query.
        dead: For each part, which documents count no more, (num_documents,) bool.

    Yields:
        For each query the scores, (n,) float32, and the rows over all parts, (n,) int64, best
        first, equal scores in the order of rows.
    """
    gone = dead or [None] * len(parts)
    starts = np.cumsum([0, *map(len, parts)])
    is_as_built = len(parts) == 1 and gone[0] is None
    average = None if is_as_built else _average(parts, gone)
    for query in queries:
        words = list(parts[0].words_of(query))
        sums = [np.zeros(len(part), np.float32) for part in parts]
        for word in words:
            _add(word, parts, gone, average, sums)
        scores = sums[0] if len(sums) == 1 else np.concatenate(sums)
        for start, each in zip(starts, gone, strict=False):
            if each is not None:
                scores[start : start + len(each)][each] = 0
        yield _best(scores, top_k)


def _add(
    word: str,
    parts: Sequence[Bm25],
    gone: Sequence[np.ndarray | None],
    average: _Average | None,
    sums: Sequence[np.ndarray],
) -> None:
    """Add what a word contributes to the scores of all documents."""
    found = [part.postings(word) for part in parts]
    if average is None:
        sums[0][found[0].rows] += found[0].scores
        return
    num_having = sum(
        len(each.rows) - (0 if dead is None else int(dead[each.rows].sum()))
        for each, dead in zip(found, gone, strict=True)
    )
    for part, each, scores in zip(parts, found, sums, strict=True):
        if len(each.rows):
            scores[each.rows] += part.corrected(each, num_having, average)


def _average(parts: Sequence[Bm25], gone: Sequence[np.ndarray | None]) -> _Average:
    lengths = [
        part.lengths if dead is None else part.lengths[~dead]
        for part, dead in zip(parts, gone, strict=True)
    ]
    count = sum(map(len, lengths))
    total = sum(int(each.sum(dtype=np.int64)) for each in lengths)
    return _Average(count, total / max(count, 1) or 1.0)


def _best(scores: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(scores > 0)
    if len(rows) > top_k:
        kept = scores[rows]
        # All that equal the last one stay, so that the first rows among equals are found.
        rows = rows[kept >= np.partition(kept, -top_k)[-top_k]]
    order = np.lexsort((rows, -scores[rows]))[:top_k]
    return scores[rows[order]], rows[order]


def _rarity(num_having: int, num_documents: int) -> float:
    """The weight of a word, from the share of documents that have it; as Lucene has it."""
    return float(np.log1p((num_documents - num_having + 0.5) / (num_having + 0.5)))
