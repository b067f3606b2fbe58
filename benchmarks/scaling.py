"""Claim: no cost grows faster than its input, in files, rows, labels, runs of a sweep or documents.

    python -m benchmarks.scaling

Each piece of work is done at sizes that double, and its CPU time, with that of its processes, is
fitted by a line in logarithms: the slope is the exponent of the cost, 1 where it is linear and less
where a fixed part stays. Where rows and labels grow together, the numbers of a model's output grow
as their product, which is a small part of the whole at these sizes. Clocks say little on a shared
machine; CPU time is not free of it either, so the least of several rounds counts. `--most` makes
the largest sizes larger or smaller.
"""

import argparse
import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import command, results
from modernbert import api
from modernbert.data.rows.tables import read_table
from modernbert.inference.embedder import Embedder
from modernbert.inference.index import Index
from modernbert.metrics.classification import classification_scores, figures_of_labels
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.finetune import open_job, read_recipe
from modernbert.tokenizer.train import train

WANTED_EXPONENT = 1.15
_NUM_SIZES = 5
_DIM = 64
_WORDS = ("river", "stone", "walks", "under", "seven", "quiet", "lamps", "of", "the", "harbour")

Work = Callable[[], object]
Prepare = Callable[[Path, int], Work]
"""Makes the inputs of a size in an empty folder, and returns the work to be measured."""


class Row(NamedTuple):
    """One kind of cost: what is counted, and the largest size."""

    unit: str
    most: int
    prepare: Prepare


def text_of(number: int) -> str:
    """A short text of its own."""
    return " ".join(random.Random(number).choices(_WORDS, k=12)) + f" {number}"


def model_folder(cache: Path) -> Path:
    """A folder with a model of one narrow layer and its tokenizer, made once."""
    folder = cache / "scaling-model"
    if not folder.exists():
        tokenizer = train([text_of(number) for number in range(2_000)], vocab_size=1_024)
        config = EncoderConfig.preset(
            "tiny", vocab_size=tokenizer.vocab_size, layer_kinds=layer_kinds(1)
        )
        torch.manual_seed(0)
        MaskedLanguageModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def rows_of(model: Path) -> dict[str, Row]:
    """All costs by name."""

    def files(folder: Path, size: int) -> Work:
        corpus = folder / "corpus"
        for number in range(size):
            place = corpus / f"{number // 1000:04d}"
            if number % 1000 == 0:
                place.mkdir(parents=True)
            (place / f"{number:07d}.txt").write_text(text_of(number))
        return lambda: api.prepare(corpus, folder / "shards", model)

    def csv_rows(folder: Path, size: int) -> Work:
        lines = [f'"{text_of(number)}, and more",{number % 7}\n' for number in range(size)]
        (folder / "rows.csv").write_text("text,label\n" + "".join(lines))
        return lambda: read_table(folder / "rows.csv")

    def classified(folder: Path, size: int, labels: int, **options: Any) -> Work:
        lines = [{"text": text_of(n), "label": f"label {n % labels}"} for n in range(size)]
        train = write_lines(folder / "train.jsonl", lines)
        dev = write_lines(folder / "dev.jsonl", lines[:: max(1, size // 64)][:64])
        given = {"model": model, "output": folder / "run", "train": train, "dev": dev, **options}
        return lambda: api.finetune("classify", epochs=1, progress=False, **given)

    def training_rows(folder: Path, size: int) -> Work:
        return classified(folder, size, 7)

    def training_labels(folder: Path, size: int) -> Work:
        return classified(folder, size, size)

    def listed_labels(folder: Path, size: int) -> Work:
        train = [{"text": text_of(n), "labels": [f"a{n}", f"b{n % 99}"]} for n in range(size)]
        dev = write_lines(folder / "dev.jsonl", train[:16])
        path = write_lines(folder / "train.jsonl", train)
        recipe = {"model": str(model), "output": str(folder / "run")}
        recipe |= {"data.train": str(path), "data.dev": str(dev)}
        return lambda: open_job("classify", read_recipe("classify", None, recipe))

    def scored_labels(_folder: Path, size: int) -> Work:
        expected = np.random.default_rng(0).integers(0, size, 50_000)
        predicted = np.where(np.arange(50_000) % 3, expected, 0)
        names = [str(number) for number in range(size)]
        return lambda: (
            classification_scores(predicted, expected, size),
            figures_of_labels(predicted, expected, names),
        )

    def runs(folder: Path, size: int) -> Work:
        return classified(folder, 64, 2, seeds=size, sweep={"processes": 1})

    def vectors(size: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((size, _DIM)).astype(np.float32)

    def blocks(size: int) -> Iterator[np.ndarray]:
        found = vectors(size)
        return (found[start : start + 1_000] for start in range(0, size, 1_000))

    def documents(folder: Path, size: int) -> Work:
        texts = [text_of(number) for number in range(size)]
        return lambda: Index.build(folder / "docs.index", blocks(size), texts=texts)

    def searched(folder: Path, size: int) -> Work:
        index = Index.build(folder / "docs.index", blocks(size))
        return lambda: [index.search(vectors(8), 10) for _ in range(50)]

    def added(folder: Path, size: int) -> Work:
        ids = [str(number) for number in range(size)]
        index = Index.build(
            folder / "docs.index", blocks(1_000), ids=[f"x{n}" for n in range(1_000)]
        )
        return lambda: index.add(blocks(size), ids=ids)

    def embedded(_folder: Path, size: int) -> Work:
        texts = [text_of(number) for number in range(size)]
        embedder = Embedder.from_pretrained(model)
        return lambda: embedder.encode(texts)

    return {
        "prepare": Row("files", 32_000, files),
        "read CSV": Row("rows", 160_000, csv_rows),
        "finetune classify": Row("rows", 8_000, training_rows),
        "finetune classify, a label a row": Row("labels", 20_000, training_labels),
        "open rows with several labels": Row("labels", 20_000, listed_labels),
        "scores of 50,000 rows": Row("labels", 320_000, scored_labels),
        "sweep": Row("runs", 32, runs),
        "embed": Row("texts", 16_000, embedded),
        "build an index": Row("documents", 160_000, documents),
        "add to an index": Row("documents", 160_000, added),
        "search an index": Row("documents", 320_000, searched),
    }


def cpu_seconds() -> float:
    """The CPU time of this process and of all its processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(row: Row, size: int) -> tuple[float, float]:
    """CPU and clock seconds of the work at one size."""
    with TemporaryDirectory() as folder:
        work = row.prepare(Path(folder), size)
        gc.collect()
        gc.freeze()  # or a full collection falls on one size and not on another
        before, began = cpu_seconds(), time.perf_counter()
        work()
        return cpu_seconds() - before, time.perf_counter() - began


def exponent_of(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of a line through the logarithms.

    >>> round(exponent_of([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-4)), 1)[0])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The cost of every row at its sizes, and its exponent."""
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows_of(model_folder(options.cache)).items():
        if options.only not in name:
            continue
        most = max(1, round(row.most * options.most))
        sizes = sorted({max(1, most >> shift) for shift in range(_NUM_SIZES)})
        measured(row, sizes[0])  # what is done once is done now
        turns = [[measured(row, size) for size in sizes] for _ in range(options.rounds)]
        cpu, clock = np.array(turns).min(0).T.tolist()
        costs = {"cpu_seconds": cpu, "seconds": clock, "exponent": exponent_of(sizes, cpu)}
        found[name] = {"unit": row.unit, "sizes": sizes, **costs}
        told = f"{sizes[-1]:9,} {row.unit:10s} {cpu[-1]:8.2f} s"
        print(f"{name:34s} {told}  exponent {costs['exponent']:.2f}")
    return {"rows": found, "largest_exponent": max(each["exponent"] for each in found.values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a cost grows faster than its input."""
    made = command.parser(
        __doc__,
        rounds=1,
        most=(1.0, "factor of the largest sizes"),
        only=("", "rows whose name has this text"),
    )
    path = results.FOLDER / "data" / "scaling.json"
    result = command.measured("scaling", measure, made.parse_args(arguments), path)
    return int(result["largest_exponent"] > WANTED_EXPONENT)


if __name__ == "__main__":
    sys.exit(main())
