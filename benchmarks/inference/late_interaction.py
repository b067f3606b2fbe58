"""Claim: encodings of fixed size find nearly all of the best documents of MaxSim in little time.

Vectors of documents and queries come from .npy files, (total_vectors, dim) with the lengths beside
them, so that they are computed once. Ours with candidates, ours exhaustively, and fast-plaid where
it is installed search for the same queries in turn, one query at a time. Recall is the share of the
best documents by exhaustive MaxSim of the stored vectors.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import command
from benchmarks.timing import by_both_clocks
from modernbert.inference.index import Index

Found = dict[str, list[list[int]]]


def texts_of(vectors: Path, lengths: Path, count: int | None) -> Iterator[np.ndarray]:
    """The vectors of each of the first texts."""
    stored, end = np.load(vectors, mmap_mode="r"), 0
    for length in np.load(lengths).ravel()[:count]:
        end += int(length)
        yield np.asarray(stored[end - int(length) : end], np.float32)


def plaid(folder: Path, documents: Path, lengths: Path, count: int, top_k: int) -> Any:
    """A search by fast-plaid with its defaults, over an index that is built here."""
    from fast_plaid import search

    is_new = not folder.exists()
    index = search.FastPlaid(index=str(folder), device="cpu")
    if is_new:
        each = [torch.from_numpy(text) for text in texts_of(documents, lengths, count)]
        index.create(documents_embeddings=each)
    return lambda query: [
        row for row, _ in index.search(torch.from_numpy(query)[None], top_k=top_k)[0]
    ]


def in_turn(
    turns: dict[str, Callable[[np.ndarray], list[int]]], queries: Sequence[np.ndarray]
) -> tuple[Found, dict[str, dict[str, float]]]:
    """What each finds, and the times of a query by the clock and of the CPU."""
    found: Found = {name: [] for name in turns}

    def search(name: str, query: np.ndarray) -> None:
        found[name].append(turns[name](query))

    calls = {name: [partial(search, name, query) for query in queries] for name in turns}
    return found, by_both_clocks(calls)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Build what is not there, search in turn, and compare with the exhaustive search."""
    top_k = options.top_k
    queries = list(texts_of(options.queries, options.query_lengths, options.num_queries))
    folder = options.work / f"{options.documents_count}-{options.clusters}.index"
    begin = time.process_time()
    if not folder.exists():
        documents = texts_of(options.documents, options.lengths, options.documents_count)
        Index.build(folder, ([each] for each in documents), kind="int8", clusters=options.clusters)
    row: dict[str, Any] = {"build_cpu_seconds": round(time.process_time() - begin, 1)}
    index = Index.open(folder)

    def ours(oversample: int) -> Callable[[np.ndarray], list[int]]:
        return lambda query: [
            hit.row for hit in index.search([query], top_k, oversample=oversample)[0]
        ]

    turns = {f"oversample {each}": ours(each) for each in options.oversample}
    turns["exhaustive"] = ours(len(index))
    if options.plaid:
        place = options.work / f"{options.documents_count}.plaid"
        begin = time.process_time()
        turns["fast-plaid"] = plaid(
            place, options.documents, options.lengths, options.documents_count, top_k
        )
        row["plaid_build_cpu_seconds"] = round(time.process_time() - begin, 1)
        row["plaid_bytes"] = size_of(place)
    in_turn(turns, queries[:1])
    found, times = in_turn(turns, queries)
    for name, rows in found.items():
        pairs = zip(rows, found["exhaustive"], strict=True)
        times[name]["recall"] = round(
            float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])), 4
        )
    manifest = index.manifest
    return {
        **row,
        "documents": len(index),
        "vectors": manifest.num_vectors,
        "dim": manifest.dim,
        "clusters": options.clusters,
        "bytes": size_of(folder),
        "queries": len(queries),
        "top_k": top_k,
        "searches": times,
    }


def size_of(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    made = command.parser(
        __doc__,
        documents_count=(100_000, "the first so many"),
        num_queries=(50, "the first so many"),
        clusters=(1024, "of the encodings"),
        top_k=(100, "documents that are sought"),
        plaid=(False, "beside fast-plaid"),
    )
    for name in ("documents", "lengths", "queries", "query-lengths"):
        made.add_argument(f"--{name}", type=Path, required=True, help="a .npy file")
    made.add_argument("--oversample", type=int, nargs="+", default=[16, 32, 64])
    made.add_argument("--work", type=Path, required=True, help="a folder for indexes")
    options = made.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    print(command.measured("late_interaction", measure, options))


if __name__ == "__main__":
    main()
