"""Vectors on their way to a file, kept whenever the process is stopped: see `job`.

Beside its lines, which are the ids, the folder of the job holds the vectors so far, and for a
multi-vector model how many vectors each text has.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from modernbert.cli.job import Job, State
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.settings import ShareSettings
from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.files import new_file, remove_folder, write_whole
from modernbert.hashes import FileHash, as_bytes
from modernbert.settings import Doc, Settings

if TYPE_CHECKING:
    import numpy as np

    from modernbert.inference.chunks import ChunkSettings
    from modernbert.inference.index_files import GrowingFile
    from modernbert.inference.index_folder import IndexOptions
    from modernbert.tokenizer.texts import Span
    from modernbert.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class IndexSettings(Settings):
    """What `embed` puts into an .index."""

    kind: Annotated[
        Literal["float32", "float16", "int8", "binary"] | None,
        Doc(
            "Number format of an .index: float32, int8 or binary for one vector per text; float32, "
            "float16 or int8 for one per token.",
            default="float32; float16 for one vector per token",
        ),
    ] = None
    clusters: Annotated[
        int | None,
        Ge(1),
        Doc(
            "In an .index with one vector per token, find candidates by encodings of this many "
            "bytes per document, such as 1024, and compare only these exactly.",
            default="every document is compared",
        ),
    ] = None
    faiss: Annotated[bool, Doc("Write a FAISS index into the .index folder as well.")] = False
    texts: Annotated[bool, Doc("Keep the texts in an .index, for `search` to show.")] = True
    fields: Annotated[
        tuple[str, ...],
        Doc(
            "Keep this column in an .index too, for `search` to show; may be repeated.",
            flags=("--field",),
        ),
    ] = ()
    bm25: Annotated[
        str,
        Doc(
            "Index the words of the texts as well, by the rules of a language such as english, or "
            "unchanged (none).",
            default="no words",
        ),
    ] = ""
    add: Annotated[
        bool,
        Doc(
            "Add the texts to an existing .index, with its options; a text with the id of an old "
            "one replaces it."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class VectorSettings(Settings):
    """Which vectors `embed` computes."""

    chunks: Annotated[
        Literal["tokens", "sentences"] | None,
        Doc(
            "Divide texts after a number of tokens or between sentences, and write a vector for "
            "each piece, computed from one pass over the whole text. The id of a piece is "
            "ID#char=START,END."
        ),
    ] = None
    chunk_tokens: Annotated[
        int | None,
        Ge(1),
        Doc("The most tokens of a piece; a longer sentence is a piece of its own.", default="256"),
    ] = None
    borders: Annotated[
        str | None,
        Doc(
            "Instead of --chunks: the column with the pieces of each text, a list of [START, END] "
            "in characters."
        ),
    ] = None
    pool_factor: Annotated[
        int | None,
        Ge(1),
        Doc(
            "Keep one vector for this many tokens of a document, by joining the most similar ones; "
            "only for models with one vector per token.",
            default="1; that of the index with --add",
        ),
    ] = None
    normalize: Annotated[bool, Doc("Scale each vector to length 1.")] = False
    truncate_dim: Annotated[
        int | None, Ge(1), Doc("Keep only the first N dimensions of each vector.")
    ] = None
    prompt: Annotated[str | None, Doc("A text to put before each text.")] = None
    prompt_name: Annotated[
        str | None,
        Doc("The name of one of the model's prompts.", default="that of documents, for an .index"),
    ] = None


_ROWS = 16_384
_ALONE = ShareSettings()
SUFFIXES = (".npy", ".parquet", ".index")


class EmbeddingJob(Job):
    """The vectors and ids so far; a context that holds the folder for this process.

    Args:
        output: The file, or the index, that they become; its suffix says which.
        dim: How many numbers a vector has.
        description: Everything that decides the vectors; a job goes on only where it is the same.
        multi: Whether a text has several vectors; the output is an index then.
        share: Which share of the job this is.
        adds: Whether the output is an index that is there, to which the texts are added.
        faiss: Whether an index gets a file for FAISS too.

    Raises:
        InputError: As `Job`.
        InUseError: Another process works on the same output.
    """

    lines_file = "ids.jsonl"

    def __init__(
        self,
        output: Path,
        dim: int,
        description: Mapping[str, Any],
        *,
        multi: bool = False,
        share: ShareSettings = _ALONE,
        adds: bool = False,
        faiss: bool = False,
    ) -> None:
        if output.suffix not in SUFFIXES:
            raise InputError(f"{output}: expected a name that ends in {', '.join(SUFFIXES)}")
        if multi and output.suffix != ".index":
            raise InputError(f"{output}: the model has several vectors per text; choose an .index")
        if output.suffix == ".parquet":
            import_extra("pyarrow")
        self.dim, self._is_multi, self.adds, self._faiss = dim, multi, adds, faiss
        super().__init__(output, {**description, "dim": dim}, share=share)

    def append(
        self, ids: Sequence[str], vectors: "np.ndarray", lengths: "np.ndarray | None" = None
    ) -> None:
        """Add some texts; what was added a second ago or more is on the disk.

        Args:
            ids: One for each text.
            vectors: (num_vectors, dim).
            lengths: (num_texts, 1), how many vectors each text of a multi-vector model has.
        """
        from modernbert.inference.index_files import line_of

        self._vectors.append(vectors)
        if self._lengths is not None:
            assert lengths is not None
            self._lengths.append(lengths)
        self.add(list(map(line_of, ids)))

    @property
    def _num_rows(self) -> int:
        return self._vectors.num_rows

    @property
    def _places(self) -> dict[Path, Path]:
        if self.output.suffix == ".npy":
            parts = {"ids.jsonl": ids_beside(self.output), "vectors.npy": self.output}
        else:
            parts = {f"output{self.output.suffix}": self.output}
        if self.output.suffix != ".index":  # which has a manifest
            parts = {"hashes.json": hashes_beside(self.output), **parts}
        return {self.folder / name: place for name, place in parts.items()}

    def _opened(self, state: State) -> "list[GrowingFile]":
        from modernbert.inference.index_files import VectorFile

        opened = self._open_files.enter_context
        vectors = self.folder / "vectors.npy"
        self._vectors = opened(VectorFile(vectors, self.dim, keep_rows=state.rows))
        files, self._lengths = [self._vectors, *super()._opened(state)], None
        if self._is_multi:
            lengths = self.folder / "lengths.npy"
            self._lengths = opened(VectorFile(lengths, 1, "<i8", keep_rows=state.texts))
            files.append(self._lengths)
        return files

    def _take(self, folder: Path, state: State) -> None:
        from modernbert.inference.index_files import read_vectors

        if not state.texts:
            return
        vectors = read_vectors(folder / "vectors.npy")
        for start in range(0, len(vectors), _ROWS):
            self._vectors.append(vectors[start : start + _ROWS])
        if self._lengths is not None:
            self._lengths.append(read_vectors(folder / "lengths.npy"))
        super()._take(folder, state)

    def finish(
        self,
        *,
        options: "IndexOptions",
        texts: Iterable[str] | None = None,
        fields: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """Make the output of all that is kept; of one task's share, note that it is complete.

        Args:
            options: Of an index.
            texts: What each text says, which an index keeps.
            fields: More about each text, which an index keeps.

        Raises:
            InputError: There was no text.
        """
        lines = {"texts": texts, "fields": fields}
        self._finish(partial(self._make_output, options, lines))

    def _require_no_output(self) -> None:
        if not self.adds:
            super()._require_no_output()

    def _make_output(self, options: "IndexOptions", lines: dict[str, Any]) -> None:
        if self.adds:
            self._add(options.get("model", ""), lines)
            return
        if self.output.suffix == ".index":
            self._build_index(self.folder / "output.index", options, lines)
            return
        if self.output.suffix == ".parquet":
            self._write_parquet(self.folder / "output.parquet")
        places = {made: place for made, place in self._places.items() if made.name != "hashes.json"}
        hashes = {place.name: FileHash.of(made) for made, place in places.items()}
        write_whole(self.folder / "hashes.json", as_bytes(hashes))

    def _blocks(self) -> Iterator["np.ndarray"]:
        from modernbert.inference.index_files import read_vectors

        vectors = read_vectors(self.folder / "vectors.npy")
        return (vectors[start : start + _ROWS] for start in range(0, len(vectors), _ROWS))

    def _read_ids(self) -> Iterator[str]:
        with (self.folder / "ids.jsonl").open("rb") as file:
            for line in file:
                yield json.loads(line)

    def _build_index(self, folder: Path, options: "IndexOptions", lines: dict[str, Any]) -> None:
        from modernbert.inference.index_folder import build_index

        if folder.exists():
            remove_folder(folder)
        build_index(folder, self._documents(), ids=self._read_ids(), **lines, **options)
        if self._faiss:
            from modernbert.inference.index import write_faiss

            write_faiss(folder)

    def _add(self, model: str, lines: dict[str, Any]) -> None:
        """Add the texts to the index; after a kill they are added again, in their own place."""
        from modernbert.inference.index_changes import add_documents

        add_documents(self.output, self._documents(), ids=self._read_ids(), model=model, **lines)

    def _documents(self) -> Any:
        """The vectors as an index takes them."""
        is_multi = self._lengths is not None
        return ([text] for text in self._texts()) if is_multi else self._blocks()

    def blocks_of_texts(self, num_texts: int) -> Iterator[list["np.ndarray"]]:
        """Yield the vectors of each text of a multi-vector job, so many texts at a time."""
        texts = self._texts() if self.num_done else iter(())
        while block := list(islice(texts, num_texts)):
            yield block

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
    """Return where the ids of a .npy file are, a line each."""
    return output.with_suffix(".ids.jsonl")


def hashes_beside(output: Path) -> Path:
    """Return where the hashes of a file of vectors, and of its ids, are."""
    return output.with_name(f"{output.name}.hashes.json")


class ChunkInput:
    """The pieces of the texts of a file, found anew each time from the beginning.

    Args:
        reader: The texts with their ids, read from the file.
        tokenizer: The tokenizer of the model.
        way: How the texts are divided, or the column that gives the borders of their pieces.
    """

    def __init__(
        self, reader: TextInput, tokenizer: "Tokenizer", way: "ChunkSettings | str"
    ) -> None:
        self._reader, self._tokenizer, self.way = reader, tokenizer, way

    def __iter__(self) -> Iterator[InputRow]:
        """Yield each piece with its name."""
        for row in self._reader:
            borders = self.borders(row)
            pieces = (row.text[start:end] for start, end in borders)
            for name, piece in zip(names_of(row.id, borders), pieces, strict=True):
                yield replace(row, id=name, given=piece)

    def after(self, num_pieces: int) -> Iterator[InputRow]:
        """Yield the texts after those that have the first pieces."""
        for row in self._reader:
            if num_pieces > 0:
                num_pieces -= len(self.borders(row))
            else:
                yield row

    def borders(self, row: InputRow) -> "list[Span]":
        """Return the start and end of each piece of a text, in characters.

        Raises:
            InputError: The column of the row holds no such list, or no part of the text.
        """
        from modernbert.inference.chunks import divided

        try:
            way = _spans(row.fields[self.way]) if isinstance(self.way, str) else self.way
            encoding = self._tokenizer.encode_with_offsets(row.text, special_tokens=False)
            return divided(row.text, encoding.offsets, way)[1]
        except InputError as error:
            raise InputError(f"{row.id}: {error}") from None


def _spans(value: Any) -> "list[Span]":
    """The borders that a cell holds, a list or as JSON."""
    try:
        found = json.loads(value)
        spans = [(start, end) for start, end in found]
    except (TypeError, ValueError, RecursionError):
        found, spans = None, []
    if not isinstance(found, list) or {type(place) for span in spans for place in span} - {int}:
        raise InputError(f"borders: got {value!r:.100}, expected a list of [start, end]")
    return spans


def names_of(name: str, borders: "Sequence[Span]") -> list[str]:
    """Return the ids of the pieces of a text: its own, and their characters as in RFC 5147.

    >>> names_of("a", [(0, 120), (121, 240)])
    ['a#char=0,120', 'a#char=121,240']
    """
    return [f"{name}#char={start},{end}" for start, end in borders]
