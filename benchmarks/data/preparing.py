"""Claim: preparing a text runs at the tokenizer library's own speed or 90% of it, on all cores.

    python -m benchmarks.data.preparing

The library alone encodes the texts, which are in memory already, in batches on all cores and drops
the ids. Preparing reads the files, encodes, spills, shuffles and writes shards. In turn, in rounds.
The corpus is the text of the Python installation, as often as it takes, each time in another order;
once as many files, which processes share, and once as one, which threads share.
"""

import argparse
import json
import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tokenizers import Tokenizer as Library

from benchmarks import command, results
from benchmarks.timing import interleave, speedup
from modernbert.cli.prepare import prepare_shards
from modernbert.cli.tokenizer import train_on
from modernbert.data.python_corpus import collect_python_corpus
from modernbert.data.settings import PrepareSettings
from modernbert.files import new_folder

WANTED_SHARE = 0.9
_VOCAB_SIZE = 16_384
_BATCH_CHARACTERS = 2 << 20
_FILES = 48


def corpus(folder: Path, num_bytes: int) -> tuple[Path, Path]:
    """A folder of JSON Lines of about so many bytes, and of a tokenizer; made once."""
    texts, tokenizer = folder / f"corpus-{num_bytes}", folder / "tokenizer"
    if not (folder / "python" / "train.jsonl").exists():
        collect_python_corpus(folder / "python")
    if not (tokenizer / "tokenizer_config.json").exists():
        train_on([folder / "python" / "train.jsonl"], _VOCAB_SIZE).save_pretrained(tokenizer)
    if not texts.exists():
        lines = (folder / "python" / "train.jsonl").read_bytes().splitlines(True)
        random.Random(0).shuffle(lines)
        lines *= -(-num_bytes // sum(map(len, lines)))
        with new_folder(texts) as made:
            (made / "many").mkdir()
            for number in range(_FILES):
                path = made / "many" / f"{number:03d}.jsonl"
                path.write_bytes(b"".join(lines[number::_FILES]))
            (made / "one").mkdir()
            (made / "one" / "all.jsonl").write_bytes(b"".join(lines))
    return texts, tokenizer


def batches(texts: Path) -> list[list[str]]:
    """All texts, in batches of about as many characters."""
    found: list[list[str]] = [[]]
    size = 0
    for path in sorted(texts.iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            found[-1].append(text)
            size += len(text)
            if size >= _BATCH_CHARACTERS:
                found.append([])
                size = 0
    return found


def encode_all(library: Library, given: Sequence[Sequence[str]]) -> None:
    """Encode everything by the library alone."""
    for batch in given:
        library.encode_batch_fast(batch, add_special_tokens=False)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and megabytes a second of everyone, and our share of the library's speed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    texts, tokenizer = corpus(options.cache, options.bytes)
    given = batches(texts / "one")
    num_bytes = sum(len(text.encode(errors="replace")) for batch in given for text in batch)
    library = Library.from_file(str(tokenizer / "tokenizer.json"))
    turns: dict[str, Callable[[], object]] = {"library": partial(encode_all, library, given)}
    output = options.cache / "shards"
    for name in ("many", "one"):
        turns[name] = partial(prepare_shards, [texts / name], output, tokenizer, PrepareSettings())

    def settle(_: float) -> None:
        shutil.rmtree(output, ignore_errors=True)

    seconds = interleave(turns, rounds=options.rounds, budget_seconds=math.inf, settle=settle)
    return {
        "text_bytes": num_bytes,
        "seconds": seconds,
        "megabytes_per_second": {
            name: num_bytes / 1e6 / median(times) for name, times in seconds.items()
        },
        "share_of_the_library": {
            name: speedup(seconds[name], seconds["library"]) for name in ("many", "one")
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if it is slower."""
    made = command.parser(__doc__, rounds=3, bytes=(200_000_000, "of the corpus, about"))
    path = results.FOLDER / "data" / "preparing.json"
    result = command.measured("preparing", measure, made.parse_args(arguments), path)
    for name, speed in result["megabytes_per_second"].items():
        print(f"{name:8s} {speed:6.1f} MB/s")
    for name, share in result["share_of_the_library"].items():
        print(f"preparing, files: {name}, runs at {share:.0%} of the library's speed")
    return int(min(result["share_of_the_library"].values()) < WANTED_SHARE)


if __name__ == "__main__":
    sys.exit(main())
