"""The ids of an index: a line each in ids.jsonl, and in ids.npy where each line begins."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.vector_file import VectorFile, read_vectors


class IdWriter:
    """Writes as many ids as there are rows; without any, rows have their numbers.

    ids: one for each row, read as they are written.
    """

    def __init__(self, folder: Path, ids: Iterable[str] | None) -> None:
        self._ids = None if ids is None else iter(ids)
        self._file = (folder / "ids.jsonl").open("wb")
        self._places = VectorFile(folder / "ids.npy", 1, np.int64)
        self.num_rows = 0

    def take(self, count: int) -> None:
        """Write the ids of the next rows.

        Raises:
            InputError: fewer are left.
        """
        self.num_rows += count
        if self._ids is None:
            return
        given = list(islice(self._ids, count))
        if len(given) < count:
            got = self.num_rows - count + len(given)
            raise InputError(f"ids: got {got}, fewer than there are vectors; give one for each")
        lines = [json.dumps(name, ensure_ascii=False).encode() + b"\n" for name in given]
        begins = self._file.tell() + np.cumsum([0, *map(len, lines[:-1])])
        self._places.append(begins[:, None])
        self._file.writelines(lines)

    def finish(self) -> None:
        """Check that no id is left.

        Raises:
            InputError: one is.
        """
        if self._ids is not None and next(self._ids, None) is not None:
            raise InputError(f"ids: got more than the {self.num_rows} vectors; give one for each")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._places.close()


class IdReader:
    """The ids of some rows.

    Raises:
        InputError: files that cannot be read, or of another number of rows.
    """

    def __init__(self, folder: Path, num_rows: int) -> None:
        self._path = folder / "ids.jsonl"
        self._places = read_vectors(folder / "ids.npy")
        if len(self._places) not in (0, num_rows):
            raise InputError(
                f"{folder / 'ids.npy'}: got {len(self._places)} rows, expected {num_rows}; "
                "build the index anew"
            )

    def names(self, rows: Iterable[int]) -> list[str]:
        """The id of each row, which is its number where there are none."""
        if not len(self._places):
            return [str(row) for row in rows]
        with self._path.open("rb") as file:
            names = []
            for row in rows:
                file.seek(int(self._places[row, 0]))
                names.append(str(json.loads(file.readline())))
        return names
