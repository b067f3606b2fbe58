"""`ServedModel`: a model folder, and what it can do by its kind."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.hub import split_revision
from modernbert.inference.batching import launch
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.loading import class_for, device_of
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.reranker import Reranker
from modernbert.kinds import ModelKind, model_kind
from modernbert.model.choices import PrecisionChoice, choose_precision
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.serving.queue import Lane
from modernbert.tokenizer.tokenizer import Tokenizer

P = TypeVar("P")

_POOLINGS: dict[ModelKind, str] = {"sparse": "splade", "multi_vector": "colbert"}
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A model that is served.

    Attributes:
        name: Its name in requests.
        kind: The kind of its folder.
        dtype: The number format in which it computes.
        encoder: The network without its head.
        tokenizer: Turns texts into token ids.
        max_seqlen: The longest sequence that it reads, in tokens.
        parts: Its abilities: objects of `inference`, by their classes.
    """

    name: str
    kind: ModelKind
    dtype: str
    encoder: Encoder
    tokenizer: Tokenizer
    max_seqlen: int
    parts: Mapping[type, Any]
    _lanes: dict[Hashable, Lane] = field(default_factory=dict, repr=False)

    def can(self, abilities: Sequence[type]) -> bool:
        """Return whether it has one of these abilities, or none is needed."""
        return not abilities or any(ability in self.parts for ability in abilities)

    def part(self, ability: type[P]) -> P:
        """Return the object for an ability that this model has."""
        part: P = self.parts[ability]
        return part

    def lane(self, name: Hashable, compute: Callable[[PackedBatch], Sequence[Any]]) -> Lane:
        """Return the lane of a named computation; it is made on first use."""
        return self._lanes.setdefault(name, Lane(self.encoder, compute))

    @property
    def description(self) -> dict[str, Any]:
        """Describe the kind of the model, as `/info` returns it."""
        if self.kind in ("embedder", "encoder"):
            return {"embedding": {"pooling": self.part(Embedder).settings.pooling}}
        if self.kind in _POOLINGS:
            return {"embedding": {"pooling": _POOLINGS[self.kind]}}
        if FillMask in self.parts:
            return {self.kind: {"mask_token": self.part(FillMask).tokenizer.mask_token}}
        labels = next((each.labels for each in self.parts.values() if hasattr(each, "labels")), ())
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
    """Load the model of a folder or from the hub, with all abilities of its kind.

    A classifier with one label can also rank; a masked language model can also embed.

    Args:
        folder_or_hub_id: The folder, that of a run, or an id on the hub.
        name: Its name in requests; the folder's name when None.
        precision: The number format in which it computes.
        compile: Have the layers of a model on a GPU fused, now and not at the first request.

    Raises:
        InputError: A name that cannot stand in a path.
        ModelFolderError: No such model, or one of no known kind.
        ModernBertError: As `from_pretrained` of the class that the folder is for.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    published = split_revision(str(folder_or_hub_id))[0]
    if not _NAME.fullmatch(name := name or Path(published).name or folder.resolve().name):
        raise InputError(
            f"name: got {name!r}, expected letters, digits, dots, dashes and underscores; "
            "write NAME=MODEL to give the model another name"
        )
    kind = model_kind(folder)
    parts = _parts_of(
        class_for(kind).from_pretrained(folder, precision=precision), folder, precision
    )
    model = next(part for ability, part in parts.items() if ability is not Reranker)
    network = model.model
    encoder: Encoder = network if isinstance(network, Encoder) else network.encoder
    device = device_of(encoder)
    if compile:
        ends = [model.tokenizer.cls_token_id, model.tokenizer.sep_token_id]
        launch(encoder.compile_for_inference(), [ends, ends], device).wait()
    return ServedModel(
        name=name,
        kind="reranker" if Reranker in parts else kind,
        dtype=choose_precision(encoder.config, precision, device)[0],
        encoder=encoder,
        tokenizer=model.tokenizer,
        max_seqlen=model.max_seqlen,
        parts=parts,
    )


def _parts_of(model: Any, folder: Path, precision: PrecisionChoice) -> dict[type, Any]:
    """Return all abilities of a model."""
    if isinstance(model, Classifier) and len(model.labels) == 1:
        model = Reranker.from_pretrained(folder, precision=precision)
    parts: dict[type, Any] = {type(model): model}
    if isinstance(model, Reranker):
        parts[Classifier] = model.classifier
    elif isinstance(model, FillMask):
        parts[Embedder] = Embedder(model.model.encoder, model.tokenizer)
    elif isinstance(model, MultiVectorEmbedder):
        model.encode_query("")  # so that all it needs is there before the first request
    return parts
