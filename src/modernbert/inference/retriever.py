"""Models for retrieval of either kind: one vector a text, or one a token."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import Side
from modernbert.inference.index import Hit, Index
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.similarity import Fusion
from modernbert.kinds import model_kind
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model

Retriever = Embedder | MultiVectorEmbedder


def load_retriever(folder_or_hub_id: Path | str, precision: PrecisionChoice = "auto") -> Retriever:
    """Load a retriever of the kind that its folder says, or of one vector per text.

    Args:
        folder_or_hub_id: The folder of the model or of a run, or a hub id.
        precision: The precision to compute in.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
        ConfigError: A setting is not supported, or the device does not support the precision.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    if model_kind(folder) == "multi_vector":
        return MultiVectorEmbedder.from_pretrained(folder, precision=precision)
    return Embedder.from_pretrained(folder, precision=precision)


def text_vectors(
    retriever: Retriever,
    texts: Iterable[str],
    side: Side,
    *,
    on_progress: Observer | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yield the vectors of any number of texts of one side, as MaxSim compares them.

    Args:
        retriever: The model; a single vector of a text has length 1 if cosines compare them.
        texts: Any number of texts.
        side: Whether the texts are queries or documents.
        on_progress: Called with the progress after every batch.

    Yields:
        (num_vectors, dim) float32 for each text, in lists.

    Raises:
        InputError: Something is not a text, or the model's vectors are compared by distances.
    """
    if isinstance(retriever, MultiVectorEmbedder):
        yield from retriever.stream(texts, side, on_progress=on_progress)
        return
    settings = retriever.settings
    if settings.similarity not in ("cosine", "dot"):
        raise InputError(f"similarity: got {settings.similarity}; search needs cosine or dot")
    for block in retriever.stream(
        texts,
        prompt=settings.side_prompt(side),
        normalize_embeddings=settings.similarity == "cosine",
        on_progress=on_progress,
    ):
        yield list(block[:, None, :])


SearchBy = Literal["vectors", "bm25", "hybrid"]


def search_texts(
    index: Index,
    retriever: Retriever | None,
    queries: Iterable[str],
    top_k: int,
    *,
    by: SearchBy = "vectors",
    fusion: Fusion | None = None,
    oversample: int | None = None,
) -> Iterator[list[Hit]]:
    """Find the best documents of an index for each query, which gets the model's prompt for them.

    Args:
        index: Whose vectors came from the same model.
        retriever: The model; None is enough to search by words alone.
        queries: Any number of texts.
        top_k: How many documents for each.
        by: What is compared: vectors, words (BM25), or both.
        fusion: See `Index.search`.
        oversample: See `Index.search`.

    Raises:
        InputError: An index of another kind of vectors than the model's, or as `Index.search`.
    """
    if by == "bm25" or retriever is None:
        for query in queries:
            yield from index.search(top_k=top_k, texts=query)
        return
    texts: deque[str] = deque()

    def kept() -> Iterator[str]:
        for query in queries:
            texts.append(query)
            yield query

    for block in _query_vectors(index, retriever, kept()):
        given = [texts.popleft() for _ in range(len(block))]
        yield from index.search(
            block,
            top_k,
            texts=given if by == "hybrid" else None,
            fusion=fusion,
            oversample=oversample,
        )


def _query_vectors(index: Index, retriever: Retriever, queries: Iterable[str]) -> Iterator[Any]:
    if index.manifest.is_ragged != isinstance(retriever, MultiVectorEmbedder):
        raise InputError(
            f"{index.folder}: contains another kind of vectors than the model computes"
        )
    if isinstance(retriever, MultiVectorEmbedder):
        return retriever.stream(queries, "query")
    prompt = retriever.settings.side_prompt("query")
    width = index.manifest.dim if index.manifest.dim < retriever.dim else None
    return retriever.stream(queries, prompt=prompt, truncate_dim=width)
