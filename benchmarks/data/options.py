"""What the scripts' command lines share."""

import argparse
import os
import tempfile
from pathlib import Path

FOLDER = Path("benchmarks/results/data")


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Options of every script."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help="how often each is measured")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of everyone")
    made.add_argument("--out", type=Path, help="file of the result")
    made.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "modernbert-data-benchmarks",
        help="folder of what is made to be read",
    )
    return made
