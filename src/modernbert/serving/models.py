"""`ServedModel`: a model folder, and what it can do by its kind."""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.launching import launch
from modernbert.inference.loading import device_of, longest_sequence
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.reranker import Reranker
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.inference.tagger import Tagger
from modernbert.kinds import NAMES, ModelKind, model_kind
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.precision import PrecisionChoice, choose_precision
from modernbert.serving.queue import Lane
from modernbert.tokenizer.tokenizer import Tokenizer

_POOLINGS: dict[ModelKind, str] = {"sparse": "splade", "multi_vector": "colbert"}
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """One model; of its abilities, those that it has are set.

    name: what requests call it.
    kind: of the folder.
    dtype: what it computes in.
    max_seqlen: the longest sequence that it reads.
    """

    name: str
    kind: ModelKind
    dtype: str
    encoder: Encoder
    tokenizer: Tokenizer
    max_seqlen: int
    embedder: Embedder | None = None
    multi_vector: MultiVectorEmbedder | None = None
    sparse: SparseEmbedder | None = None
    classifier: Classifier | None = None
    reranker: Reranker | None = None
    tagger: Tagger | None = None
    fill_mask: FillMask | None = None
    _lanes: dict[Hashable, Lane] = field(default_factory=dict, repr=False)

    def can(self, ability: str) -> bool:
        """Whether it has an ability: the name of a part, or of none needed."""
        return not ability or getattr(self, ability) is not None

    @property
    def token_embedder(self) -> Embedder | MultiVectorEmbedder | None:
        """What gives one vector a token."""
        return self.embedder if self.multi_vector is None else self.multi_vector

    @property
    def ranker(self) -> Reranker | MultiVectorEmbedder | None:
        """What ranks texts by how well they answer a query."""
        return self.reranker if self.multi_vector is None else self.multi_vector

    def lane(
        self, key: Hashable, make: Callable[[], Callable[[PackedBatch], Sequence[Any]]]
    ) -> Lane:
        """The lane of this key, made when it is first asked for."""
        if key not in self._lanes:
            self._lanes[key] = Lane(self.encoder, make())
        return self._lanes[key]

    @property
    def description(self) -> dict[str, Any]:
        """The kind and what belongs to it, as `/info` tells it."""
        if self.embedder is not None and self.kind in ("embedder", "encoder"):
            return {"embedding": {"pooling": self.embedder.settings.pooling}}
        if self.kind in _POOLINGS:
            return {"embedding": {"pooling": _POOLINGS[self.kind]}}
        labelled = self.classifier or self.tagger
        labels = [] if labelled is None else list(labelled.labels)
        names = {
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
        }
        return {self.kind: names if labels else {}}


def load(
    folder_or_hub_id: Path | str,
    *,
    name: str | None = None,
    precision: PrecisionChoice = "auto",
    compile: bool = False,
) -> ServedModel:
    """Load the model of a folder, or of the hub, as what it is.

    A model folder that sentence-transformers wrote embeds, with one vector a text or a token; so
    does a bare encoder. A classifier with one output is a reranker. A masked language model fills
    masks, and embeds too.

    name: what requests call it; the folder's name when None.
    compile: have the layers of a model on a GPU fused, now and not at the first request.

    Raises:
        InputError: a name that cannot stand in a path.
        ModelFolderError: no such model, or one of no known kind.
        ModernBertError: as `from_pretrained` of the class that the folder is for.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    if not _NAME.fullmatch(name := name or Path(folder_or_hub_id).name or folder.resolve().name):
        raise InputError(
            f"name: got {name!r}, expected letters, digits, dots, dashes and underscores; "
            "write NAME=MODEL to give the model another name"
        )
    kind = model_kind(folder)
    if kind not in _PARTS:
        raise ModelFolderError(f"{folder}: holds {NAMES[kind]}, which has no route")
    parts = _PARTS[kind](folder, precision)
    kind = "reranker" if "reranker" in parts else kind
    model = next(part for part in parts.values() if part is not None)
    model = model.classifier if isinstance(model, Reranker) else model
    network = model.encoder if isinstance(model, Embedder) else model.model
    encoder = network if isinstance(network, Encoder) else network.encoder
    tokenizer = model.tokenizer
    device = device_of(encoder)
    if compile:
        ends = tokenizer.template.frame([]) or [tokenizer.mask_token_id]
        launch(encoder.compile_for_inference(), [ends, ends], device).wait()
    limit = getattr(model, "max_seqlen", None) or longest_sequence(encoder.config, tokenizer)
    return ServedModel(
        name=name,
        kind=kind,
        dtype=choose_precision(encoder.config, precision, device)[0],
        encoder=encoder,
        tokenizer=tokenizer,
        max_seqlen=limit,
        **parts,
    )


def _load_embedder(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    return {"embedder": Embedder.from_pretrained(folder, precision=precision)}


def _load_multi_vector(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    embedder = MultiVectorEmbedder.from_pretrained(folder, precision=precision)
    embedder.encode_query("")  # so that all it needs is there before the first request
    return {"multi_vector": embedder}


def _load_sparse(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    return {"sparse": SparseEmbedder.from_pretrained(folder, precision=precision)}


def _load_classifier(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    classifier = Classifier.from_pretrained(folder, precision=precision)
    return (
        {"classifier": classifier}
        if len(classifier.labels) > 1
        else _load_reranker(folder, precision)
    )


def _load_reranker(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    reranker = Reranker.from_pretrained(folder, precision=precision)
    return {"reranker": reranker, "classifier": reranker.classifier}


def _load_tagger(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    return {"tagger": Tagger.from_pretrained(folder, precision=precision)}


def _load_masked_lm(folder: Path, precision: PrecisionChoice) -> dict[str, Any]:
    fill_mask = FillMask.from_pretrained(folder, precision=precision)
    embedder = Embedder(fill_mask.model.encoder, fill_mask.tokenizer)
    return {"fill_mask": fill_mask, "embedder": embedder}


_PARTS: dict[ModelKind, Callable[[Path, PrecisionChoice], dict[str, Any]]] = {
    "encoder": _load_embedder,
    "embedder": _load_embedder,
    "multi_vector": _load_multi_vector,
    "sparse": _load_sparse,
    "classifier": _load_classifier,
    "reranker": _load_reranker,
    "tagger": _load_tagger,
    "masked_lm": _load_masked_lm,
}
