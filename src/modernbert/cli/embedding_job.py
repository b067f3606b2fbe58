"""Vectors on their way to a file: what is computed is kept, whenever the process is stopped.

The folder `OUT.unfinished` belongs to one process at a time. It holds the vectors and ids so far,
for a multi-vector model also how many vectors each text has, and `job.json`: what is embedded with
what, and how much of each file counts, with its hash. When all vectors are there, the output is
made in that folder, `job.json` says that it is complete, and its files are moved to their places.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.files import locked, new_file, remove_folder, sync, write_whole
from modernbert.hashes import FileHash, as_bytes
from modernbert.json_files import parse_foreign, read_object

if TYPE_CHECKING:
    import numpy as np

_ROWS = 16_384
_SECONDS_BETWEEN_SAVES = 1.0
_STATE_FILE = "job.json"
SUFFIXES = (".npy", ".parquet", ".index")


@dataclass(frozen=True, kw_only=True)
class _State:
    """What `job.json` says.

    Attributes:
        job: What is embedded with what.
        texts, rows, id_bytes: How many texts, vectors and bytes of ids are kept.
        hashes: Of what is kept, by the name of the file.
        is_complete: Whether the files of the output are all made, so that they only have to be
            moved.
    """

    job: Mapping[str, Any] = field(default_factory=dict)
    texts: int = 0
    rows: int = 0
    id_bytes: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = False


class EmbeddingJob:
    """The vectors and ids so far; a context that holds the folder for this process.

    Args:
        output: The file, or the index, that they become; its suffix says which.
        dim: How many numbers a vector has.
        description: Everything that decides the vectors; a job goes on only where it is the same.
        multi: Whether a text has several vectors; the output is an index then.

    Raises:
        InputError: An output that is there already or of another kind, another job's folder, or one
            whose files are not as they were left.
        InUseError: Another process works on the same output.
    """

    def __init__(
        self, output: Path, dim: int, description: Mapping[str, Any], *, multi: bool = False
    ) -> None:
        if output.suffix not in SUFFIXES:
            raise InputError(f"{output}: expected a name that ends in {', '.join(SUFFIXES)}")
        if multi and output.suffix != ".index":
            raise InputError(f"{output}: the model has several vectors per text; choose an .index")
        if output.suffix == ".parquet":
            import_extra("pyarrow")
        self.output, self.dim = output, dim
        self.folder = output.with_name(output.name + ".unfinished")
        self._open_files = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(self._held_folder())
            self._state = self._kept = self._taken_up({**description, "dim": dim})
            stack.push(self._open_files)
            if not self.is_complete:
                self._open(multi=multi)
            self._stack = stack.pop_all()
        self._saved_at = time.monotonic()

    @property
    def num_done(self) -> int:
        """How many texts are embedded so far."""
        return self._kept.texts

    @property
    def num_saved(self) -> int:
        """How many texts are embedded and on the disk, for the next start."""
        return self._state.texts

    @property
    def num_vectors(self) -> int:
        """How many vectors there are so far."""
        return self._kept.rows

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left but to move the output to its place."""
        return self._state.is_complete

    def append(
        self, ids: Sequence[str], vectors: "np.ndarray", lengths: "np.ndarray | None" = None
    ) -> None:
        """Add some texts; what was added a second ago or more is on the disk.

        Args:
            ids: One for each text.
            vectors: (num_vectors, dim).
            lengths: (num_texts, 1), how many vectors each text of a multi-vector model has.
        """
        self._vectors.append(vectors)
        if self._lengths is not None:
            assert lengths is not None
            self._lengths.append(lengths)
        self._ids.append(b"".join(map(_line, ids)))
        self._kept = replace(
            self._kept,
            texts=self._kept.texts + len(ids),
            rows=self._vectors.num_rows,
            id_bytes=self._ids.num_bytes,
            hashes={each.path.name: each.sha256 for each in self._files},
        )
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Make all that was added durable: a kill does not lose it."""
        if self._kept != self._state:
            for file in self._files:
                file.sync()
            self._write_state(self._kept)
        self._saved_at = time.monotonic()

    def finish(self, *, kind: str, model: str, texts: Iterable[str] | None = None) -> None:
        """Make the output of all that is kept.

        Args:
            kind: Of an index.
            model: The fingerprint of the model, which an index keeps.
            texts: What each text says, which an index keeps.

        Raises:
            InputError: There was no text.
        """
        if not self.is_complete:
            self.save()
            self._open_files.close()
            if not self.num_done:
                remove_folder(self.folder)
                raise InputError(f"{self.output}: the input has no text; nothing was written")
            self._make_output(kind, model, texts)
            self._write_state(replace(self._state, is_complete=True))
        self._move_output()
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None and self.folder.exists() and not self.is_complete:
                with suppress(OSError):  # the disk may be full
                    self.save()

    @property
    def _places(self) -> dict[Path, Path]:
        """Where the files of the output are made, and their places, in the order of moving them."""
        if self.output.suffix == ".npy":
            parts = {"ids.jsonl": ids_beside(self.output), "vectors.npy": self.output}
        else:
            parts = {f"output{self.output.suffix}": self.output}
        if self.output.suffix != ".index":  # which has a manifest
            parts = {"hashes.json": hashes_beside(self.output), **parts}
        return {self.folder / name: place for name, place in parts.items()}

    @contextmanager
    def _held_folder(self) -> Iterator[None]:
        """The folder, made where there is none and no output, and held by this process."""
        if not self.folder.exists():
            self._require_no_output()
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            yield

    def _require_no_output(self) -> None:
        for place in (self.output, *self._places.values()):
            if place.exists():
                raise InputError(f"{place}: already exists; delete it or choose another name")

    def _taken_up(self, description: dict[str, Any]) -> _State:
        """The state so far, which is a new one where there is none."""
        path = self.folder / _STATE_FILE
        content = read_object(path, InputError)
        if not content:
            self._require_no_output()
            state = _State(job=description)
            self._write_state(state)
            return state
        before = content.pop("job", {})
        if before != description:
            name = next(k for k in {**before, **description} if before.get(k) != description.get(k))
            raise InputError(
                f"{self.folder}: belongs to a job with another {name.replace('_', ' ')}; delete "
                "it, or run the earlier command again to continue"
            )
        state = parse_foreign(_State, content, str(path), error=InputError)
        if not state.is_complete:
            self._require_no_output()
        return replace(state, job=description)

    def _open(self, *, multi: bool) -> None:
        """Open the files at the end of what counts."""
        from modernbert.inference.index_files import GrowingFile, VectorFile

        state, opened = self._state, self._open_files.enter_context
        try:
            vectors = self.folder / "vectors.npy"
            self._vectors = opened(VectorFile(vectors, self.dim, keep_rows=state.rows))
            self._ids = opened(GrowingFile(self.folder / "ids.jsonl", state.id_bytes))
            self._files = [self._vectors, self._ids]
            self._lengths = None
            if multi:
                lengths = self.folder / "lengths.npy"
                self._lengths = opened(VectorFile(lengths, 1, "<i8", keep_rows=state.texts))
                self._files.append(self._lengths)
            for file in self._files if state.texts else ():
                if file.sha256 != state.hashes.get(file.path.name):
                    raise InputError(f"{file.path}: was changed since it was written")
        except InputError as error:
            raise InputError(f"{error}; delete {self.folder} to begin anew") from None

    def _write_state(self, state: _State) -> None:
        text = json.dumps(asdict(state), indent=2) + "\n"
        write_whole(self.folder / _STATE_FILE, text.encode())
        self._state = self._kept = state

    def _make_output(self, kind: str, model: str, texts: Iterable[str] | None) -> None:
        """Make what is not made yet of the output's files, all within the folder."""
        if self.output.suffix == ".index":
            self._build_index(self.folder / "output.index", kind, model, texts)
            return
        if self.output.suffix == ".parquet":
            self._write_parquet(self.folder / "output.parquet")
        places = {made: place for made, place in self._places.items() if made.name != "hashes.json"}
        hashes = {place.name: FileHash.of(made) for made, place in places.items()}
        write_whole(self.folder / "hashes.json", as_bytes(hashes))

    def _move_output(self) -> None:
        """Move the output's files to their places, as far as they are not there by now."""
        for made, place in self._places.items():
            if made.exists():
                made.replace(place)
            elif not place.exists():
                raise InputError(f"{place}: is gone; delete {self.folder} to begin anew")
        sync(self.output.parent)

    def _blocks(self) -> Iterator["np.ndarray"]:
        from modernbert.inference.index_files import read_vectors

        vectors = read_vectors(self.folder / "vectors.npy")
        return (vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS))

    def _read_ids(self) -> Iterator[str]:
        with (self.folder / "ids.jsonl").open("rb") as file:
            for line in file:
                yield json.loads(line)

    def _build_index(
        self, folder: Path, kind: Any, model: str, texts: Iterable[str] | None
    ) -> None:
        from modernbert.inference.index_folder import build_index

        if folder.exists():
            remove_folder(folder)
        blocks: Any = (
            ([text] for text in self._texts()) if self._lengths is not None else self._blocks()
        )
        build_index(folder, blocks, ids=self._read_ids(), texts=texts, kind=kind, model=model)

    def _texts(self) -> Iterator["np.ndarray"]:
        """The vectors of each text, of a multi-vector model."""
        from modernbert.inference.index_files import read_vectors

        vectors, end = read_vectors(self.folder / "vectors.npy"), 0
        for length in read_vectors(self.folder / "lengths.npy")[:, 0]:
            end += int(length)
            yield vectors[end - int(length) : end]

    def _write_parquet(self, path: Path) -> None:
        """Write the vectors with their ids; its pages have checksums."""
        pyarrow, parquet = import_extra("pyarrow"), import_extra("pyarrow.parquet")
        ids = self._read_ids()
        vectors_type = pyarrow.list_(pyarrow.float32(), self.dim)
        schema = pyarrow.schema([("id", pyarrow.string()), ("vector", vectors_type)])
        with (
            new_file(path) as file,
            parquet.ParquetWriter(file, schema, write_page_checksum=True) as writer,
        ):
            for block in self._blocks():
                names = pyarrow.array(list(islice(ids, len(block))), pyarrow.string())
                flat = pyarrow.array(block.reshape(-1))
                vectors = pyarrow.FixedSizeListArray.from_arrays(flat, self.dim)
                writer.write_table(pyarrow.table({"id": names, "vector": vectors}))


def ids_beside(output: Path) -> Path:
    """Where the ids of a .npy file are, a line each."""
    return output.with_suffix(".ids.jsonl")


def hashes_beside(output: Path) -> Path:
    """Where the hashes of a file of vectors, and of its ids, are."""
    return output.with_name(f"{output.name}.hashes.json")


def _line(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode() + b"\n"
