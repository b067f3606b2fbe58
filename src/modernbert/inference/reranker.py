"""`Reranker`: how well documents answer a query, read together with it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from modernbert.errors import ConfigError, InputError
from modernbert.inference.batching import Observer
from modernbert.inference.classifier import Classifier
from modernbert.inference.inputs import require_list
from modernbert.inference.loading import load_for_inference
from modernbert.kinds import ModelKind
from modernbert.model.config_file import find_model
from modernbert.model.heads import SequenceClassifier
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

Activation = Literal["Sigmoid", "Identity"]

_SETTINGS_FILES = ("config_sentence_transformers.json", "config.json")


@dataclass(frozen=True)
class RankedDocument:
    """A document's place in the list it came in, and its score."""

    index: int
    score: float


class Reranker:
    """Scores pairs of query and document with a classifier of one output.

    model: on any device, in any precision.
    tokenizer: the one that the model was trained with.
    activation: what makes a score of an output; sentence-transformers' default is Sigmoid.

    Raises:
        ConfigError: a classifier with more outputs than one, or an unknown activation.
        InputError: a tokenizer of another vocabulary, or a longest sequence that cannot be read.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        tokenizer: Tokenizer,
        *,
        activation: Activation = "Sigmoid",
        max_seqlen: int | None = None,
    ) -> None:
        if len(model.labels) != 1:
            raise ConfigError(
                f"labels: got {len(model.labels)}, expected 1, the relevance; "
                "take Classifier for a model with several"
            )
        if activation not in get_args(Activation):
            expected = " or ".join(get_args(Activation))
            raise ConfigError(f"activation: {activation!r} is not supported; {expected} is")
        self.classifier = Classifier(model, tokenizer, max_seqlen=max_seqlen)
        self.activation = activation

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
    ) -> "Reranker":
        """Load a classifier with one output, such as a CrossEncoder of sentence-transformers.

        Raises:
            ModelFolderError: no such model, or one that cannot be used.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: more outputs than one, or a precision that cannot be had here.
        """
        wanted: tuple[ModelKind, ...] = ("reranker", "classifier")
        folder = find_model(folder_or_hub_id, weights=True, wanted=wanted)
        model, tokenizer = load_for_inference(SequenceClassifier, folder, precision)
        activation = read_activation(folder)
        return cls(model, tokenizer, activation=activation, max_seqlen=max_seqlen)

    def scores(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> np.ndarray:
        """The score of each pair of query and document: (num_pairs,) float32.

        Raises:
            InputError: something else than pairs of texts, or an option that cannot be.
        """
        require_list(pairs, "pairs")
        blocks = self.classifier.logits(
            map(_as_pair, pairs), batch_tokens=batch_tokens, on_progress=on_progress
        )
        outputs = [np.zeros(0, np.float32), *(block[:, 0].numpy() for block in blocks)]
        return self.activated(np.concatenate(outputs))

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> list[RankedDocument]:
        """The documents by their scores, best first; among equals the earlier comes first.

        top_k: how many to give; all when None.

        Raises:
            InputError: something else than texts, or an option that cannot be.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        require_list(documents, "documents")
        pairs = [(query, document) for document in documents]
        scores = self.scores(pairs, batch_tokens=batch_tokens, on_progress=on_progress)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [RankedDocument(int(index), float(scores[index])) for index in order]

    def activated(self, outputs: np.ndarray) -> np.ndarray:
        """The scores that the model's outputs, (num_pairs,) float32, stand for."""
        if self.activation == "Identity":
            return outputs
        # exp(-|x|) cannot overflow.
        small = np.exp(-np.abs(outputs))
        scores = np.where(outputs >= 0, 1 / (1 + small), small / (1 + small))
        return np.asarray(scores, np.float32)


def read_activation(folder: Path) -> Activation:
    """The activation that a CrossEncoder's folder names, of any version; else the default.

    Raises:
        ConfigError: one that is not supported.
    """
    for name in _SETTINGS_FILES:
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        nested = said.get("sentence_transformers") or {}
        named = nested.get("activation_fn") or said.get("activation_fn")
        if named := named or said.get("sbert_ce_default_activation_function"):
            found = str(named).rpartition(".")[2]
            if found not in get_args(Activation):
                expected = " or ".join(get_args(Activation))
                raise ConfigError(
                    f"{folder / name}: activation {named} is not supported; {expected} is"
                )
            return "Identity" if found == "Identity" else "Sigmoid"
    return "Sigmoid"


def _as_pair(pair: object) -> tuple[str, str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"pairs: got {type(pair).__name__}, expected pairs of query and document")
    return pair[0], pair[1]
