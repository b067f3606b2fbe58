"""Claim: preparing a text runs at the tokenizer library's own speed or 90% of it, on all cores.

    python -m benchmarks.data.preparing

The library alone encodes the texts, which are in memory already, in batches on all cores and drops
the ids. Preparing reads the files, encodes, spills, shuffles and writes shards. In turn, in rounds.
The corpus is the text of the Python installation, as often as it takes, each time in another order;
once as many files, which processes share, and once as one, which threads share.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer as Library

from benchmarks import results
from benchmarks.command import parser
from modernbert.cli.prepare import prepare_shards
from modernbert.cli.tokenizer import train_on
from modernbert.data.python_corpus import collect
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
        collect(folder / "python")
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


def library_seconds(library: Library, given: Sequence[Sequence[str]]) -> float:
    """The time that the library takes by itself."""
    began = time.perf_counter()
    for batch in given:
        library.encode_batch_fast(batch, add_special_tokens=False)
    return time.perf_counter() - began


def prepare_seconds(texts: Path, tokenizer: Path, output: Path) -> float:
    """The time from files to shards."""
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    prepare_shards([texts], output, tokenizer, PrepareSettings())
    seconds = time.perf_counter() - began
    shutil.rmtree(output)
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if it is slower."""
    made = parser(__doc__ or "", rounds=3)
    made.add_argument("--bytes", type=int, default=200_000_000, help="of the corpus, about")
    options = made.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    texts, tokenizer = corpus(options.cache, options.bytes)
    given = batches(texts / "one")
    num_bytes = sum(len(text.encode(errors="replace")) for batch in given for text in batch)
    around = results.surroundings(num_threads=options.threads)
    turns = {
        "library": partial(
            library_seconds, Library.from_file(str(tokenizer / "tokenizer.json")), given
        ),
        **{
            name: partial(prepare_seconds, texts / name, tokenizer, options.cache / "shards")
            for name in ("many", "one")
        },
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, turn in turns.items():
            seconds[name].append(turn())
    share = {
        name: median(a / b for a, b in zip(seconds["library"], seconds[name], strict=True))
        for name in ("many", "one")
    }
    result = {
        "benchmark": "preparing",
        **around,
        "text_bytes": num_bytes,
        "seconds": seconds,
        "megabytes_per_second": {
            name: num_bytes / 1e6 / median(times) for name, times in seconds.items()
        },
        "share_of_the_library": share,
    }
    results.write(options.out or results.FOLDER / "data" / "preparing.json", result)
    for name, speed in result["megabytes_per_second"].items():
        print(f"{name:8s} {speed:6.1f} MB/s")
    for name, each in share.items():
        print(f"preparing, files: {name}, runs at {each:.0%} of the library's speed")
    return int(min(share.values()) < WANTED_SHARE)


if __name__ == "__main__":
    sys.exit(main())
