"""Claim: `modernbert verify` finds every flipped bit in every file that this package writes."""

import contextlib
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modernbert.cli import main


@dataclass
class Outcome:
    """How many bits were flipped, and which of them were not found."""

    flips: int = 0
    files: int = 0
    faults: list[str] = field(default_factory=list)


def verify(folder: Path) -> int:
    """The exit code of `modernbert verify`; nothing is shown."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        try:
            main(["verify", str(folder)])
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1
    return 0


def run(samples: Mapping[str, Path], *, flips_each: int, seed: int = 0) -> Outcome:
    """Flip some bits of every file, one at a time, and put each back.

    Args:
        samples: Folders by what they hold; they are as they were at the end.
        flips_each: How many bits of a file.
        seed: Of the choice of bits.
    """
    draw, outcome = random.Random(seed), Outcome()
    for name, folder in samples.items():
        if verify(folder) != 0:
            outcome.faults.append(f"{name}: does not verify as it was written")
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.stat().st_size:
                outcome.files += 1
                _flip(path, folder, flips_each, draw, outcome)
    return outcome


def _flip(path: Path, folder: Path, flips: int, draw: random.Random, outcome: Outcome) -> None:
    before = path.read_bytes()
    for _ in range(flips):
        place = draw.randrange(8 * len(before))
        content = bytearray(before)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        outcome.flips += 1
        if verify(folder) != 2:
            outcome.faults.append(f"{folder.name}/{path.name}: bit {place} was not found")
    path.write_bytes(before)
