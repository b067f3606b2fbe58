"""A model in few small files, to bring it from a machine that returns no large ones.

    python -m benchmarks.cuda.carrying split runs/mini/averaged $OUT
    python -m benchmarks.cuda.carrying join FOLDER mini
    python -m benchmarks.finetune --data DATA --model mini --work scores      its scores

`split` writes the folder as one archive, its weights in bfloat16, in parts of less than 16 MB and
their hashes; `join` refuses parts that are not whole.
"""

import argparse
import io
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from modernbert.errors import ModelFolderError
from modernbert.files import new_folder
from modernbert.hashes import as_bytes, find_faults, hash_folder, read_hashes

HASHES = "hashes.json"
PART_BYTES = 15_000_000
_WEIGHTS = "model.safetensors"


def split(model: Path, out: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write a model folder in parts, and beside them a file of their hashes; return the parts."""
    out.mkdir(parents=True, exist_ok=True)
    whole = _archive(model)
    parts = []
    for start in range(0, len(whole), part_bytes):
        parts.append(out / f"part-{len(parts):02}")
        parts[-1].write_bytes(whole[start : start + part_bytes])
    (out / HASHES).write_bytes(as_bytes(hash_folder(out)))
    return parts


def join(parts: Path, model: Path) -> None:
    """Write the model folder again that `split` has read.

    Raises:
        ModelFolderError: A part is missing, or is not as it was written.
    """
    hashes = read_hashes(parts / HASHES)
    for fault in find_faults(parts, hashes):
        raise ModelFolderError(fault)
    whole = b"".join((parts / name).read_bytes() for name in sorted(hashes))
    with new_folder(model) as folder, tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        archive.extractall(folder, filter="data")


def _archive(model: Path) -> bytes:
    stream = io.BytesIO()
    with TemporaryDirectory() as folder, tarfile.open(fileobj=stream, mode="w") as archive:
        narrowed = Path(folder) / _WEIGHTS
        tensors = load_file(model / _WEIGHTS)
        save_file({name: each.to(torch.bfloat16) for name, each in tensors.items()}, narrowed)
        for path in sorted(model.iterdir()):
            if path.name != HASHES:  # those of the wide weights
                archive.add(narrowed if path.name == _WEIGHTS else path, path.name)
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join what is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    try:
        (split if options.verb == "split" else join)(options.source, options.target)
    except ModelFolderError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
