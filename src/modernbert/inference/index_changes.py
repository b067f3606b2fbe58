"""Changing an index: adding, replacing and deleting documents while others search it.

    manifest.json    which segments there are, and which documents of them are deleted
    segment-3/       documents that came together, as `index_folder` writes them; never changed
    deleted-4.npy    the rows of deleted documents, counted over all segments

A change writes new files beside the old ones, then replaces the manifest at one moment, and then
removes what the manifest does not name. So readers see an index before a change or after it, and a
process that is killed leaves one of the two; the next change clears what it left.

Small segments are joined as they come, so that there are few: one is joined with the one before
unless that has more than twice as many documents.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import InputError, SettingsError
from modernbert.files import TEMPORARY_PREFIX, locked, new_folder, remove_folder, write_whole
from modernbert.hashes import FileHash, find_size_fault, require_inner_paths
from modernbert.inference.index_files import read_vectors
from modernbert.inference.index_folder import FILES, Block, IndexOptions, build_index
from modernbert.inference.index_segment import Segment
from modernbert.json_files import parse_foreign, read_object
from modernbert.kinds import MANIFEST_FILE

FORMAT = "modernbert index 3"
_SEGMENT = "segment-"
_DELETED = "deleted-"
_FIRST = f"{_SEGMENT}0"
FAISS_FILE = "index.faiss"
FAISS_HASHES_FILE = f"{FAISS_FILE}.hashes.json"


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """What the manifest of an index says that was changed.

    Attributes:
        segments: The folders of the segments, within the index; the folder itself, "", is the only
            one of an index that was never changed.
        deleted: The file of the rows of deleted documents; empty if there are none.
        change: How many changes there were.
        files: The size and hash of that file.
    """

    segments: tuple[str, ...] = ("",)
    deleted: str = ""
    change: int = 0
    format: str = FORMAT
    files: Mapping[str, FileHash] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_inner_paths({name: FileHash(bytes=0, sha256="") for name in self.names})
        require_inner_paths(self.files)
        if self.deleted and self.deleted not in self.files:
            raise SettingsError(f"files: lacks {self.deleted}")
        if not self.segments:
            raise SettingsError("segments: got none, expected 1 or more")

    @property
    def names(self) -> list[str]:
        """The names of the index's files and folders, without its manifest."""
        return [name for name in (*self.segments, self.deleted) if name]

    @classmethod
    def read(cls, folder: Path) -> "IndexState":
        """Read the manifest of an index, changed or not.

        Raises:
            InputError: It cannot be read.
        """
        path = folder / MANIFEST_FILE
        content = read_object(path, InputError)
        if content.get("format") != FORMAT:
            return cls()
        return parse_foreign(cls, content, str(path), error=InputError)


def open_segments(folder: Path) -> tuple[IndexState, list[Segment]]:
    """Open the segments of an index as they are at one moment.

    Raises:
        InputError: There is no index, or its files do not fit each other.
    """
    while True:
        state = IndexState.read(folder)
        try:
            return state, _opened(folder, state)
        except InputError:
            if IndexState.read(folder) == state:  # and no change has removed the files meanwhile
                raise


def _opened(folder: Path, state: IndexState) -> list[Segment]:
    segments = [Segment(folder / name) for name in state.segments]
    if not state.deleted:
        return segments
    path = folder / state.deleted
    if fault := find_size_fault(path, state.files[state.deleted]):
        raise InputError(f"{path}: {fault}; build the index anew")
    rows = read_vectors(path)[:, 0]
    dead = np.zeros(sum(map(len, segments)), bool)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(dead):
        raise InputError(f"{path}: names rows that are not there; build the index anew")
    dead[rows] = True
    for segment, start in zip(segments, starts_of(segments), strict=True):
        part = dead[start : start + len(segment)]
        segment.dead = part if part.any() else None
    return segments


def add_documents(
    folder: Path,
    blocks: Iterable[Block],
    *,
    ids: Iterable[str],
    texts: Iterable[str] | None = None,
    fields: Iterable[Mapping[str, Any]] | None = None,
    model: str = "",
) -> int:
    """Add documents to an index; one whose id is there already takes the place of the earlier one.

    Args:
        folder: Of the index.
        blocks: As in `build_index`.
        ids: One for each document, all different.
        texts: One for each document, if the index keeps texts.
        fields: One for each document, if the index keeps fields.
        model: Whose vectors they are.

    Returns:
        How many documents were added.

    Raises:
        InputError: Documents of another kind than those of the index, or as `build_index`.
        InUseError: Another process is changing the index.
    """
    with _changed(folder) as (state, segments):
        manifest = segments[0].manifest
        _require_same_parts(segments[0], texts=texts, fields=fields)
        if model and manifest.model and model != manifest.model:
            raise InputError(f"{folder}: holds vectors of another model; use that one")
        place = _next_segment(folder)
        seen: dict[str, None] = {}
        build_index(
            place,
            _of_kind(blocks, is_ragged=manifest.is_ragged),
            ids=_distinct(ids, seen),
            texts=texts,
            fields=fields,
            dim=manifest.dim,
            **_options(segments[0]),
        )
        for segment in segments:
            _kill(segment, segment.ids.rows_of(seen))
        segments = [*segments, Segment(place)]
        while len(segments) > 1 and segments[-2].num_alive <= 2 * segments[-1].num_alive:
            segments = _with_last_joined(folder, segments, 2)
        _commit(folder, segments, state.change + 1)
    return len(seen)


def delete_documents(folder: Path, ids: Iterable[str]) -> int:
    """Delete the documents with some ids.

    Returns:
        How many documents were deleted.

    Raises:
        InputError: The index has no ids.
        InUseError: Another process is changing the index.
    """
    with _changed(folder) as (state, segments):
        before, wanted = sum(each.num_alive for each in segments), set(map(str, ids))
        for segment in segments:
            _kill(segment, segment.ids.rows_of(wanted))
        num_deleted = before - sum(each.num_alive for each in segments)
        if num_deleted:
            _commit(folder, segments, state.change + 1)
    return num_deleted


def compact(folder: Path) -> None:
    """Write an index anew from the documents that it holds, as one segment.

    Raises:
        InputError: No documents are left, or the index has no ids.
        InUseError: Another process is changing the index.
    """
    with _changed(folder) as (state, segments):
        if not any(each.num_alive for each in segments):
            raise InputError(f"{folder}: holds no documents any more; delete the folder")
        segments = _with_last_joined(folder, segments, len(segments))
        _commit(folder, segments, state.change + 1)


@contextmanager
def _changed(folder: Path) -> Iterator[tuple[IndexState, list[Segment]]]:
    """The segments of an index, which belongs to this process meanwhile."""
    with locked(folder):
        state, segments = open_segments(folder)
        if not all(each.ids for each in segments):
            raise InputError(f"{folder}: has no ids; build it with ids to change it")
        _clear(folder, state)
        if not state.change:
            _move_within(folder)
            segments = [Segment(folder / _FIRST)]
        try:
            yield state, segments
        finally:
            _clear(folder, IndexState.read(folder))


def _move_within(folder: Path) -> None:
    """Give the files of an index that was never changed a second place, in its first segment."""
    with new_folder(folder / _FIRST) as first:
        for path in _own_files(folder):
            place = first / path.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            try:
                os.link(path, place)
            except OSError:  # no links here
                shutil.copy2(path, place)


def _own_files(folder: Path) -> list[Path]:
    """The files of an index that was never changed."""
    places = [folder / name for name in FILES] + list(folder.glob("bm25/*"))
    return [path for path in (*places, folder / MANIFEST_FILE) if path.exists()]


def _commit(folder: Path, segments: Sequence[Segment], change: int) -> None:
    """Make segments, and what is deleted of them, the content of an index at one moment."""
    dead = [
        start + np.flatnonzero(each.dead)
        for each, start in zip(segments, starts_of(segments), strict=True)
        if each.dead is not None
    ]
    deleted = f"{_DELETED}{change}.npy" if dead else ""
    if dead:
        content = io.BytesIO()
        np.save(content, np.concatenate(dead)[:, None])
        write_whole(folder / deleted, content.getvalue())
    state = IndexState(
        segments=tuple(each.folder.name for each in segments),
        deleted=deleted,
        change=change,
        files={deleted: FileHash.of(folder / deleted)} if dead else {},
    )
    write_whole(folder / MANIFEST_FILE, json.dumps(asdict(state), indent=2).encode() + b"\n")


def _clear(folder: Path, state: IndexState) -> None:
    """Remove what the manifest does not name: leftovers, and what a change has replaced."""
    kept = {folder / name for name in state.names}
    prefixes = (_SEGMENT, _DELETED, TEMPORARY_PREFIX)
    found = [path for path in folder.iterdir() if path.name.startswith(prefixes)]
    if state.change:
        flat = (path for path in _own_files(folder) if path.name != MANIFEST_FILE)
        found += [*(path for path in flat if path.parent == folder), folder / "bm25"]
        found += [folder / FAISS_HASHES_FILE, folder / FAISS_FILE]  # the vectors of before
    for path in found:
        if path in kept or not path.exists():
            continue
        if path.is_dir():
            remove = shutil.rmtree if path.name.startswith(TEMPORARY_PREFIX) else remove_folder
            remove(path)
        else:
            path.unlink()


def _with_last_joined(folder: Path, segments: Sequence[Segment], num: int) -> list[Segment]:
    """Write the documents of the last segments into one."""
    first, last = segments[:-num], segments[-num:]
    place = _next_segment(folder)
    build_index(
        place,
        (vectors for each in last for _, _, vectors in each.alive()),
        ids=_lines(last, "ids"),
        texts=None if last[0].texts is None else _lines(last, "texts"),
        fields=None if last[0].fields is None else _lines(last, "fields"),
        **_options(last[0]),
    )
    return [*first, Segment(place)]


def _next_segment(folder: Path) -> Path:
    """Where the next segment goes."""
    numbers = (int(path.name.removeprefix(_SEGMENT)) for path in folder.glob(f"{_SEGMENT}*"))
    return folder / f"{_SEGMENT}{1 + max(numbers, default=0)}"


def _lines(segments: Sequence[Segment], name: str) -> Iterator[Any]:
    """The ids, texts or fields of the documents that count."""
    for segment in segments:
        for rows, keep, _ in segment.alive():
            numbers = np.flatnonzero(keep) + rows.start
            yield from getattr(segment, name).of(numbers.tolist())


def _options(segment: Segment) -> IndexOptions:
    """How another segment of the same index is built."""
    manifest = segment.manifest
    return {
        "kind": manifest.kind,
        "similarity": manifest.similarity,
        "model": manifest.model,
        "bm25": manifest.bm25,
        "clusters": manifest.clusters,
        "pool_factor": manifest.pool_factor,
    }


def _kill(segment: Segment, rows: np.ndarray) -> None:
    if len(rows):
        dead = np.zeros(len(segment), bool) if segment.dead is None else segment.dead.copy()
        dead[rows] = True
        segment.dead = dead


def _distinct(ids: Iterable[str], seen: dict[str, None]) -> Iterator[str]:
    """Yield ids that are all different, and keep them."""
    for name in map(str, ids):
        if name in seen:
            raise InputError(f"ids: got {name!r} twice; each document needs an id of its own")
        seen[name] = None
        yield name


def _of_kind(blocks: Iterable[Block], *, is_ragged: bool) -> Iterator[Block]:
    """Refuse documents with one vector among those with several, and the reverse."""
    for block in blocks:
        if len(block) and isinstance(block, np.ndarray) == is_ragged:
            has = "several vectors" if is_ragged else "one vector"
            raise InputError(f"vectors: the documents of this index have {has} each; give the same")
        yield block


def _require_same_parts(segment: Segment, **given: Any) -> None:
    for name, values in given.items():
        kept = getattr(segment, name) is not None
        if kept != (values is not None):
            names = f" {', '.join(segment.field_names)}" if kept and name == "fields" else ""
            said = f"keeps {name}{names}; give them" if kept else f"keeps no {name}; leave them out"
            raise InputError(f"{segment.folder.parent}: {said}")


def starts_of(segments: Sequence[Segment]) -> list[int]:
    """Return the row of the first document of each segment."""
    return list(accumulate(map(len, segments[:-1]), initial=0))
