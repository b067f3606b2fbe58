"""Models for retrieval of either kind: one vector a text, or one a token."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import Side
from modernbert.inference.index import Hit, Index
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_folder import is_multi_vector
from modernbert.model.config_file import find_model
from modernbert.model.precision import PrecisionChoice

Retriever = Embedder | MultiVectorEmbedder


def load_retriever(folder_or_hub_id: Path | str, precision: PrecisionChoice = "auto") -> Retriever:
    """Load a model of the kind that its folder says; one vector a text when it says nothing.

    Raises:
        ModelFolderError: No such model, or one that cannot be used.
        TokenizerError: No tokenizer beside it, or one that cannot be used.
        ConfigError: A setting that is not supported, or a precision that cannot be had here.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    if is_multi_vector(folder):
        return MultiVectorEmbedder.from_pretrained(folder, precision=precision)
    return Embedder.from_pretrained(folder, precision=precision)


def text_vectors(
    retriever: Retriever,
    texts: Iterable[str],
    side: Side,
    *,
    batch_tokens: int | None = None,
    on_progress: Observer | None = None,
) -> Iterator[list[np.ndarray]]:
    """The vectors of any number of texts of one side, for MaxSim: (num_vectors, dim) each.

    One vector a text is of length 1 where cosines compare.

    Raises:
        InputError: Something else than texts, or a model whose vectors are compared by distances.
    """
    if isinstance(retriever, MultiVectorEmbedder):
        yield from retriever.stream(texts, side, batch_tokens=batch_tokens, on_progress=on_progress)
        return
    settings = retriever.settings
    if settings.similarity not in ("cosine", "dot"):
        raise InputError(f"similarity: got {settings.similarity}; search needs cosine or dot")
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    for block in retriever.stream(
        texts,
        prompt=settings.first_prompt(names),
        normalize_embeddings=settings.similarity == "cosine",
        batch_tokens=batch_tokens,
        on_progress=on_progress,
    ):
        yield list(block[:, None, :])


def search_texts(
    index: Index,
    retriever: Retriever,
    queries: Iterable[str],
    top_k: int,
    *,
    oversample: int | None = None,
) -> Iterator[list[Hit]]:
    """Find the best documents of an index for each query, which gets the model's prompt for them.

    Args:
        index: Whose vectors came from the same model.
        retriever: The model.
        queries: Any number of texts.
        top_k: How many documents for each.
        oversample: See `Index.search`.

    Raises:
        InputError: An index of another kind of vectors than the model's, or as `search`.
    """
    blocks: Iterator[Any]
    if index.manifest.is_ragged != isinstance(retriever, MultiVectorEmbedder):
        raise InputError(
            f"{index.folder}: contains another kind of vectors than the model computes"
        )
    if isinstance(retriever, MultiVectorEmbedder):
        blocks = retriever.stream(queries, "query")
    else:
        prompt = retriever.settings.side_prompt("query")
        width = index.manifest.dim if index.manifest.dim < retriever.dim else None
        blocks = retriever.stream(queries, prompt=prompt, truncate_dim=width)
    for block in blocks:
        yield from index.search(block, top_k, oversample=oversample)
