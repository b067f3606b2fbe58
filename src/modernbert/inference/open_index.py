"""Indexes of either kind, and texts searched in them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from modernbert.errors import InputError
from modernbert.inference.embedder import Embedder
from modernbert.inference.index_folder import format_of
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_index import FORMAT, MultiVectorIndex
from modernbert.inference.retriever import Retriever
from modernbert.inference.search import Hit, SearchIndex

Index = SearchIndex | MultiVectorIndex


def open_index(folder: Path | str) -> Index:
    """Open an index of the kind that it says it is.

    Raises:
        InputError: no index there, or one whose files do not fit each other.
    """
    path = Path(folder).expanduser()
    return MultiVectorIndex.open(path) if format_of(path) == FORMAT else SearchIndex.open(path)


def search_texts(
    index: Index,
    retriever: Retriever,
    queries: Iterable[str],
    top_k: int,
    *,
    oversample: int | None = None,
) -> Iterator[list[Hit]]:
    """The best for each query, which gets the model's marker of queries.

    oversample: see `SearchIndex.search`.

    Raises:
        InputError: an index of another kind of vectors than the model's, or as `search`.
    """
    if isinstance(index, MultiVectorIndex) and isinstance(retriever, MultiVectorEmbedder):
        for texts in retriever.stream(queries, "query"):
            yield from index.search(texts, top_k)
    elif isinstance(index, SearchIndex) and isinstance(retriever, Embedder):
        prompt = retriever.settings.first_prompt(("query",))
        width = index.manifest.dim if index.manifest.dim < retriever.dim else None
        for block in retriever.stream(queries, prompt=prompt, truncate_dim=width):
            yield from index.search(block, top_k, oversample=oversample)
    else:
        raise InputError(f"{index.folder}: holds vectors of another kind than the model gives")
