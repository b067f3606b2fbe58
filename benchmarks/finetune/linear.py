"""The linear model on TF-IDF that an encoder must beat: `python -m benchmarks.finetune.linear`."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.finetune.runs import agreement, ndcg_at_10, one_run
from benchmarks.finetune.workloads import Row, Workload, read


def run(workload: Workload, folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """The workload's metric on its test rows; None where TF-IDF has no such model."""
    started = time.perf_counter()
    model = _MODELS.get(workload.verb)
    score = model(workload, folder) if model else None
    return {"score": score, "seconds": time.perf_counter() - started}


def _predict(workload: Workload, folder: Path) -> float:
    train, test = read(folder / "train.jsonl"), read(folder / "test.jsonl")
    features = _features(train, test)
    target = "label" if workload.verb == "classify" else "score"
    model = LogisticRegression(max_iter=2000) if target == "label" else Ridge()
    model.fit(features[0], [row[target] for row in train])
    return agreement(workload.metric, [row[target] for row in test], model.predict(features[1]))


def _features(train: Sequence[Row], test: Sequence[Row]) -> tuple[csr_matrix, csr_matrix]:
    """Words and pairs of words; of two texts those of both, and what they have in common."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    vectorizer.fit([row["text"] for row in train])

    def features(rows: Sequence[Row]) -> csr_matrix:
        first = vectorizer.transform([row["text"] for row in rows])
        if "text_pair" not in rows[0]:
            return first
        second = vectorizer.transform([row["text_pair"] for row in rows])
        overlap = np.asarray(first.multiply(second).sum(axis=1))
        return hstack([first, second, overlap, overlap**2]).tocsr()

    return features(train), features(test)


def _tag(workload: Workload, folder: Path) -> float:
    """Logistic regression on a word, its neighbours and their shapes."""
    del workload
    from seqeval.metrics import f1_score

    train, test = read(folder / "train.jsonl"), read(folder / "test.jsonl")
    vectorizer = DictVectorizer()
    inputs = vectorizer.fit_transform([each for row in train for each in _word_features(row)])
    tags = [tag for row in train for tag in row["tags"]]
    model = LogisticRegression(max_iter=300).fit(inputs, tags)
    found = [list(model.predict(vectorizer.transform(_word_features(row)))) for row in test]
    return float(f1_score([row["tags"] for row in test], found))


def _word_features(row: Row) -> list[dict[str, Any]]:
    words = ["", *row["tokens"], ""]
    return [
        {
            f"{place}:{kind}": value
            for place in (-1, 0, 1)
            for kind, value in (
                ("word", words[index + place].lower()),
                ("upper", words[index + place][:1].isupper()),
                ("end", words[index + place][-3:]),
            )
        }
        for index in range(1, len(words) - 1)
    ]


def _retrieve(workload: Workload, folder: Path) -> float:
    """Cosines of TF-IDF vectors."""
    del workload
    corpus, queries = read(folder / "corpus.jsonl"), read(folder / "queries.jsonl")
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    documents = vectorizer.fit_transform([row["text"] for row in corpus])
    scores = (vectorizer.transform([row["text"] for row in queries]) @ documents.T).toarray()
    return ndcg_at_10(scores, queries, corpus, folder)


_MODELS: dict[str, Callable[[Workload, Path], float]] = {
    "classify": _predict,
    "regress": _predict,
    "tag": _tag,
    "retrieve": _retrieve,
}


if __name__ == "__main__":
    one_run(__doc__, run, precisions=())
