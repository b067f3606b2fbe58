"""Models for retrieval of either kind: one vector a text, or one a token."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_folder import is_multi_vector
from modernbert.inference.multi_vector_settings import Side
from modernbert.model.config_file import find_model
from modernbert.model.precision import PrecisionChoice

Retriever = Embedder | MultiVectorEmbedder


def load_retriever(folder_or_hub_id: Path | str, precision: PrecisionChoice = "auto") -> Retriever:
    """Load a model of the kind that its folder says; one vector a text when it says nothing.

    Raises:
        ModelFolderError: no such model, or one that cannot be used.
        TokenizerError: no tokenizer beside it, or one that cannot be used.
        ConfigError: a setting that is not supported, or a precision that cannot be had here.
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
        InputError: something else than texts, or a model whose vectors are compared by distances.
    """
    if isinstance(retriever, MultiVectorEmbedder):
        yield from retriever.stream(texts, side, batch_tokens=batch_tokens, on_progress=on_progress)
        return
    settings = retriever.settings
    if settings.similarity not in ("cosine", "dot"):
        raise InputError(f"similarity: {settings.similarity} is not searched by; cosine or dot is")
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    for block in retriever.stream(
        texts,
        prompt=settings.first_prompt(names),
        normalize_embeddings=settings.similarity == "cosine",
        batch_tokens=batch_tokens,
        on_progress=on_progress,
    ):
        yield list(block[:, None, :])
