"""Claim: no corpus folder makes `prepare` wait, fail with a traceback or take memory without bound.

Each hostile corpus holds one good text and one thing that is none. `prepare` must end well with the
one document, and count what it passed over.
"""

import gzip
import json
import lzma
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.reliability.kills import run_child

_TEXT = "The square of number 5 is 25, and nothing else is. "


@dataclass
class Outcome:
    """How many corpora there were, and which of them were not prepared."""

    corpora: int = 0
    faults: list[str] = field(default_factory=list)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")


def _device(folder: Path) -> None:
    (folder / "device.txt").symlink_to("/dev/zero")


def _nowhere(folder: Path) -> None:
    (folder / "nowhere.txt").symlink_to(folder / "gone")


def _circle(folder: Path) -> None:
    (folder / "circle.txt").symlink_to(folder / "circle.txt")


def _loop(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)


def _out(folder: Path) -> None:
    (folder / "passwords.txt").symlink_to("/etc/passwd")


def _deep(folder: Path) -> None:
    """As deep as the names of a path may be long, and not deeper, so that it can be removed."""
    before = Path.cwd()
    os.chdir(folder)
    for _ in range(400):
        Path("deep-folder").mkdir()
        os.chdir("deep-folder")
    os.chdir(before)


def _binary(folder: Path) -> None:
    (folder / "noise.txt").write_bytes(bytes(range(256)) * 64)


def _gzip_bomb(folder: Path) -> None:
    with gzip.open(folder / "bomb.jsonl.gz", "wb") as file:
        for _ in range(256):
            file.write(bytes(1 << 20))


def _xz_bomb(folder: Path) -> None:
    packer = lzma.LZMACompressor()
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(256)]
    (folder / "bomb.jsonl.xz").write_bytes(b"".join(pieces) + packer.flush())


def _torn(folder: Path) -> None:
    (folder / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 99)[:-20])


def _nested(folder: Path) -> None:
    (folder / "nested.json").write_text("[" * 100_000)


def _lines(folder: Path) -> None:
    rows = ["{", "5", '{"text": 5}', '{"text": "\\ud800"}', "[" * 5000, '{"text": ' + "9" * 5000]
    (folder / "lines.jsonl").write_text("\n".join(rows))


def _parquet(folder: Path) -> None:
    (folder / "none.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")


def _dictionary(folder: Path) -> None:
    """One text of 4 MB of one letter, which a million rows name in a kilobyte or two."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    many = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 1_000_000, pyarrow.int32()), pyarrow.array(["\0" * (4 << 20)])
    )
    parquet.write_table(
        pyarrow.table({"other": many}), folder / "dictionary.parquet", compression="zstd"
    )


CORPORA: Mapping[str, Callable[[Path], Any]] = {
    "a pipe": _pipe,
    "a link to a device": _device,
    "a link to nothing": _nowhere,
    "a link to itself": _circle,
    "a link to its folder": _loop,
    "a link out of the folder": _out,
    "folders too deep for a path": _deep,
    "bytes that are no text": _binary,
    "gzip of 256 MB of zeros": _gzip_bomb,
    "xz of 256 MB of zeros": _xz_bomb,
    "a torn gzip file": _torn,
    "100,000 nested lists": _nested,
    "lines that are no documents": _lines,
    "a broken Parquet file": _parquet,
    "a Parquet file of one long text": _dictionary,
}


def run(samples: Mapping[str, Path], home: Path) -> Outcome:
    """Prepare every hostile corpus.

    Args:
        samples: With a tokenizer among them.
        home: A folder that is not there yet, for the corpora.
    """
    outcome = Outcome()
    for name, make in CORPORA.items():
        place = home / name.replace(" ", "-")
        (place / "corpus").mkdir(parents=True)
        (place / "corpus" / "good.txt").write_text(_TEXT * 20, encoding="utf-8")
        make(place / "corpus")
        arguments = ["prepare", "corpus", "out", "--tokenizer", str(samples["tokenizer"])]
        more = ("--held-out", "0", "--workers", "1")
        code, said, _ = run_child(place, [*arguments, *more])
        outcome.corpora += 1
        manifest = place / "out" / "manifest.json"
        documents = json.loads(manifest.read_text())["num_documents"] if manifest.exists() else 0
        if code != 0 or documents != 1 or "Traceback" in said:
            outcome.faults.append(f"{name}: code {code}, {documents} documents: {said[-300:]}")
    return outcome
