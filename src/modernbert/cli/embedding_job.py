"""Vectors on their way to a file: what is computed is kept, whenever the process is stopped.

The folder `OUT.unfinished` holds the vectors and ids so far, for a multi-vector model also how many
vectors each text has, and the job: what is embedded with what. When all are there they become the
output, and the folder is deleted.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_ROWS = 16_384
SUFFIXES = (".npy", ".parquet", ".index")


class EmbeddingJob:
    """The vectors and ids so far.

    output: the file, or the index, that they become; its suffix says which.
    description: everything that decides the vectors; a job goes on only where it is the same.
    multi: whether a text has several vectors; the output is an index then.

    Raises:
        InputError: an output that is there already or of another kind, or another job's folder.
    """

    def __init__(
        self, output: Path, dim: int, description: Mapping[str, Any], *, multi: bool = False
    ) -> None:
        from modernbert.inference.index_files import VectorFile

        if output.suffix not in SUFFIXES:
            raise InputError(f"{output}: expected a name that ends in {', '.join(SUFFIXES)}")
        if multi and output.suffix != ".index":
            raise InputError(f"{output}: the model has several vectors a text; name an .index")
        if output.exists():
            raise InputError(f"{output}: is there already; delete it or name another file")
        self.output = output
        self.folder = output.with_name(output.name + ".unfinished")
        self._state = self._taken_up({**description, "dim": dim})
        self.num_done: int = self._state["texts"]
        rows: int = self._state["rows"]
        self._vectors = VectorFile(self.folder / "vectors.npy", dim, keep_rows=rows)
        self._lengths = None
        if multi:
            self._lengths = VectorFile(
                self.folder / "lengths.npy", 1, "<i8", keep_rows=self.num_done
            )
        self._ids = (self.folder / "ids.jsonl").open("ab")
        self._ids.truncate(self._state["id_bytes"])
        self._ids.seek(0, os.SEEK_END)

    @property
    def num_vectors(self) -> int:
        """How many vectors there are so far."""
        return self._vectors.num_rows

    def append(
        self, ids: Sequence[str], vectors: "np.ndarray", lengths: "np.ndarray | None" = None
    ) -> None:
        """Keep these; after that a kill does not lose them.

        lengths: how many vectors each text has, (num_texts, 1), of a multi-vector model.
        """
        self._vectors.append(vectors)
        if self._lengths is not None:
            assert lengths is not None
            self._lengths.append(lengths)
            self._lengths.sync()
        self._ids.writelines(_line(name) for name in ids)
        self._ids.flush()
        os.fsync(self._ids.fileno())
        self._vectors.sync()
        self.num_done += len(ids)
        self._write_state(rows=self._vectors.num_rows, id_bytes=self._ids.tell())

    def finish(self, *, kind: str, model: str) -> None:
        """Make the output of all that is kept.

        kind: of an index.
        model: the fingerprint of the model, which an index keeps.
        """
        from modernbert.files import remove_folder

        self.close()
        if not self.num_done:
            remove_folder(self.folder)
            raise InputError(f"{self.output}: the input holds no text; nothing is written")
        if self.output.suffix == ".npy":
            (self.folder / "ids.jsonl").replace(ids_beside(self.output))
            (self.folder / "vectors.npy").replace(self.output)
        elif self.output.suffix == ".parquet":
            self._write_parquet()
        else:
            self._build_index(kind, model)
        remove_folder(self.folder)

    def close(self) -> None:
        """Give the files free; the job can be taken up later."""
        self._vectors.close()
        self._ids.close()
        if self._lengths is not None:
            self._lengths.close()

    def _taken_up(self, description: dict[str, Any]) -> dict[str, Any]:
        """The state so far, which is a new one where there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            state: dict[str, Any] = json.loads((self.folder / "job.json").read_text("utf-8"))
        except FileNotFoundError:
            self._state = {"job": description}
            self.num_done = 0
            self._write_state(rows=0, id_bytes=0)
            return self._state
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder}: cannot be read, delete it: {error}") from None
        if state.get("job") != description:
            before = state.get("job", {})
            name = next(k for k in {**before, **description} if before.get(k) != description.get(k))
            raise InputError(
                f"{self.folder}: is of a job with another {name.replace('_', ' ')}; delete it, or "
                "run the same command as before to go on"
            )
        return state

    def _write_state(self, *, rows: int, id_bytes: int) -> None:
        from modernbert.files import write_whole

        progress = {"texts": self.num_done, "rows": rows, "id_bytes": id_bytes}
        self._state = {**self._state, **progress}
        text = json.dumps(self._state, indent=2) + "\n"
        write_whole(self.folder / "job.json", text.encode())

    def _blocks(self) -> Iterator["np.ndarray"]:
        from modernbert.inference.index_files import read_vectors

        vectors = read_vectors(self.folder / "vectors.npy")
        return (vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS))

    def _read_ids(self) -> Iterator[str]:
        with (self.folder / "ids.jsonl").open("rb") as file:
            for line in file:
                yield json.loads(line)

    def _build_index(self, kind: Any, model: str) -> None:
        from modernbert.inference.index_folder import build_index

        blocks: Any = (
            ([text] for text in self._texts()) if self._lengths is not None else self._blocks()
        )
        build_index(self.output, blocks, ids=self._read_ids(), kind=kind, model=model)

    def _texts(self) -> Iterator["np.ndarray"]:
        """The vectors of each text, of a multi-vector model."""
        from modernbert.inference.index_files import read_vectors

        vectors, end = read_vectors(self.folder / "vectors.npy"), 0
        for length in read_vectors(self.folder / "lengths.npy")[:, 0]:
            end += int(length)
            yield vectors[end - int(length) : end]

    def _write_parquet(self) -> None:
        from modernbert.files import TEMPORARY_PREFIX

        pyarrow: Any = import_module("pyarrow")  # it has no types
        parquet: Any = import_module("pyarrow.parquet")
        ids = self._read_ids()
        dim = self._vectors.dim
        fields = [("id", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), dim))]
        temporary = self.output.with_name(f"{TEMPORARY_PREFIX}{self.output.name}")
        with parquet.ParquetWriter(temporary, pyarrow.schema(fields)) as writer:
            for block in self._blocks():
                names = pyarrow.array(list(islice(ids, len(block))), pyarrow.string())
                flat = pyarrow.array(block.reshape(-1))
                vectors = pyarrow.FixedSizeListArray.from_arrays(flat, dim)
                writer.write_table(pyarrow.table({"id": names, "vector": vectors}))
        temporary.replace(self.output)


def ids_beside(output: Path) -> Path:
    """Where the ids of a .npy file are, a line each."""
    return output.with_suffix(".ids.jsonl")


def _line(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode() + b"\n"
