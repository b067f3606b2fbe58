"""A model as `mteb` (from version 2) takes it: `mteb.evaluate(MtebEncoder(embedder), tasks)`.

Nothing of that package is imported before it asks for a model's description; its inputs are
batches, mappings with a list of texts each, and rows of data sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from modernbert.data.judged_texts import JudgedTexts
from modernbert.errors import InputError
from modernbert.evaluation.run import rank_judged
from modernbert.inference.embedder import Embedder
from modernbert.inference.reranker import Reranker
from modernbert.inference.retriever import Retriever

Batches = Iterable[Mapping[str, Any]]


class _Named:
    """What all have: a name under which results are kept.

    Args:
        name: Such as "owner/model".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def mteb_model_meta(self) -> Any:
        """The description that mteb asks for.

        Raises:
            InputError: Mteb is not installed.
        """
        try:
            described: Any = import_module("mteb.models.model_meta").ModelMeta
        except ImportError:
            raise InputError("mteb is not installed: pip install mteb") from None
        return described.create_empty(overwrites={"name": self.name, "revision": "local"})


class MtebEncoder(_Named):
    """One vector a text, for all tasks of mteb."""

    def __init__(self, embedder: Embedder, name: str = "modernbert/local") -> None:
        super().__init__(name)
        self.embedder = embedder

    def encode(self, inputs: Batches, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Return the vectors of all texts of all batches, (num_texts, dim) float32.

        Args:
            inputs: The files and folders of the corpus.
            prompt_type: `query` or `document` take that side's prompt; None takes the default.
        """
        side = getattr(prompt_type, "value", prompt_type)
        encode = {"query": self.embedder.encode_query, "document": self.embedder.encode_document}
        vectors: np.ndarray = encode.get(side, self.embedder.encode)(texts_of(inputs))
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return how alike each of the first is to each of the second."""
        return self.embedder.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return how alike the first of the one is to the first of the other, and so on."""
        pairs = zip(embeddings1, embeddings2, strict=True)
        values = [float(self.embedder.similarity(first, second)) for first, second in pairs]
        return Tensor(values)


class MtebSearcher(_Named):
    """A retriever of either kind, for the retrieval and reranking tasks of mteb."""

    def __init__(self, retriever: Retriever, name: str = "modernbert/local") -> None:
        super().__init__(name)
        self.retriever = retriever
        self._documents: dict[str, str] = {}

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Take the documents: rows of `id`, `text` and perhaps `title`."""
        self._documents = {
            str(row["id"]): f"{row.get('title') or ''} {row['text']}".strip() for row in corpus
        }

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Find the best documents of each query, with their scores.

        Args:
            queries: Rows with the `id` and the `text` of a query.
            top_k: The number of results to return, best first.
            top_ranked: The documents among which to rank, for each query; all when None.
        """
        texts = {str(row["id"]): str(row["text"]) for row in queries}
        if top_ranked is None:
            return self._ranked(texts, self._documents, top_k)
        found: dict[str, dict[str, float]] = {}
        for query, names in top_ranked.items():
            documents = {name: self._documents[name] for name in names}
            found |= self._ranked({query: texts[query]}, documents, top_k)
        return found

    def _ranked(
        self, queries: Mapping[str, str], documents: Mapping[str, str], top_k: int
    ) -> dict[str, dict[str, float]]:
        judged = JudgedTexts(name="mteb", queries=queries, documents=documents, judgements={})
        return rank_judged(self.retriever, judged, top_k=top_k)


class MtebReranker(_Named):
    """A reranker, for the reranking tasks of mteb."""

    def __init__(self, reranker: Reranker, name: str = "modernbert/local") -> None:
        super().__init__(name)
        self.reranker = reranker

    def predict(self, inputs1: Batches, inputs2: Batches, **_: Any) -> np.ndarray:
        """Return the score of each query with the document at its place, (num_pairs,) float32."""
        pairs = zip(texts_of(inputs1), texts_of(inputs2), strict=True)
        return self.reranker.scores(list(pairs))


def texts_of(batches: Batches) -> list[str]:
    """Return the texts of all batches, in their order.

    Raises:
        InputError: A batch without texts, such as one of images.
    """
    texts: list[str] = []
    for batch in batches:
        if "text" not in batch:
            raise InputError(f"mteb: got a batch of {', '.join(batch)}, expected texts")
        texts += batch["text"]
    return texts
