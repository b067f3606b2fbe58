"""`modernbert verify`: reads files again and compares them with what was written."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.options import AsJson, argument, echo_json
from modernbert.cli.terminal import counted
from modernbert.errors import InputError, ModernBertError

if TYPE_CHECKING:
    from modernbert.hashes import Hashes

_DAMAGED = 2


def verify(
    path: Annotated[
        Path,
        argument(
            "PATH",
            "A folder that this program wrote, or one that holds several; or a file of vectors.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Find files that have changed since they were written.

    Every file of shards, checkpoints, runs, models, indexes and vectors in the folder and its
    subfolders is read and compared with the hash that was written with it. The command exits with
    code 2 if a file is missing or differs.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = _Findings()
    for folder in [path, *_folders_below(path)] if path.is_dir() else [path.parent]:
        _verify_folder(folder, found, only=None if path.is_dir() else path)
    if not found.num_files:
        raise InputError(
            f"{path}: holds no file that was written with a hash; give a folder that this package "
            "wrote"
        )
    if as_json:
        echo_json({"files": found.num_files, "bytes": found.num_bytes, "faults": found.faults})
    else:
        for fault in found.faults:
            typer.echo(fault)
        as_written = found.num_files - len(found.faults)
        typer.echo(
            f"{path}: {as_written:,} of {counted(found.num_files, 'file')} as written, "
            f"{found.num_bytes:,} bytes"
        )
    if found.faults:
        raise typer.Exit(_DAMAGED)


@dataclass
class _Findings:
    """How many files were read, and what is wrong with some."""

    num_files: int = 0
    num_bytes: int = 0
    faults: list[str] = field(default_factory=list)


def _folders_below(path: Path) -> Iterator[Path]:
    return (each for each in sorted(path.rglob("*")) if each.is_dir() and not each.is_symlink())


def _verify_folder(folder: Path, found: _Findings, *, only: Path | None) -> None:
    """Verify the files of a folder that hashes are known of, but not those of folders within."""
    from modernbert.hashes import HASHES_FILE, find_faults, read_hashes

    places = [HASHES_FILE] if only is None else []
    names = [*places, *sorted(each.name for each in folder.glob("*.hashes.json"))]
    for name in names:
        if not (folder / name).exists():
            continue
        try:
            hashes = read_hashes(folder / name)
        except ModernBertError as error:
            _add(found, {}, [str(error)])
            continue
        if only is None or only.name in hashes:
            _add(found, hashes, find_faults(folder, hashes))
    if only is None:
        _verify_manifest(folder, found)


def _add(found: _Findings, hashes: "Hashes", faults: Any) -> None:
    faults = list(faults)
    found.num_files += max(len(hashes), len(faults))
    found.num_bytes += sum(each.bytes for each in hashes.values())
    found.faults += faults


def _verify_manifest(folder: Path, found: _Findings) -> None:
    """Verify the files that a folder's manifest lists, if it has one."""
    from modernbert.kinds import MANIFEST_FILE, find_kind

    if not (folder / MANIFEST_FILE).exists():
        return
    try:
        kind = find_kind(folder)
        if kind == "checkpoint":
            _verify_checkpoint(folder, found)
        elif kind == "index":
            _verify_index(folder, found)
        elif kind == "shards":
            _verify_shards(folder, found)
    except ModernBertError as error:
        _add(found, {}, [str(error)])


def _verify_checkpoint(folder: Path, found: _Findings) -> None:
    from modernbert.training.checkpoint import find_fault

    files = [each for each in folder.iterdir() if each.is_file()]
    found.num_files += len(files)
    found.num_bytes += sum(each.stat().st_size for each in files)
    if (fault := find_fault(folder)) is not None:
        found.faults.append(f"{folder}: {fault}")


def _verify_index(folder: Path, found: _Findings) -> None:
    from modernbert.hashes import find_faults
    from modernbert.inference.index import Index
    from modernbert.inference.index_changes import IndexState
    from modernbert.inference.index_folder import IndexManifest

    state = IndexState.read(folder)
    hashes = state.files if state.change else IndexManifest.read(folder).files
    faults = list(find_faults(folder, hashes))
    _add(found, hashes, faults)
    if not faults:
        Index.open(folder)  # its borders and ids fit each other


def _verify_shards(folder: Path, found: _Findings) -> None:
    from modernbert.data.shards import ShardFolder

    opened = ShardFolder.open(folder)
    records = [each for one in opened.shards for each in (one.record.tokens, one.record.offsets)]
    found.num_files += len(records)
    found.num_bytes += sum(each.num_bytes for each in records)
    try:
        opened.verify()
    except ModernBertError as error:
        found.faults.append(str(error))
