"""`Reranker`: scores of documents that are read together with a query.

The model is either the classifier of a config.json with one output, or an encoder followed by the
modules Pooling, Dense, LayerNorm, ..., of which the last returns one number.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack, get_args

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.inference.batching import RunOptions
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder_folder import Prompted, read_pooled_folder
from modernbert.inference.foreign_files import (
    RerankerFile,
    TransformerFile,
    activation_of,
    read_prompt_file,
)
from modernbert.inference.inputs import CutSide, EncodedText, Text, require_list
from modernbert.inference.loading import load_for_inference
from modernbert.inference.text_model import Use
from modernbert.json_files import read_object, read_settings
from modernbert.kinds import CONFIG_FILE, SETTINGS_FILE, TRANSFORMER_FILE, ModelKind, read_modules
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.multi_vector import DenseActivation
from modernbert.model.pooling import Poolings, pool
from modernbert.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RerankerSettings(Prompted):
    """How the score of a pair is computed.

    Attributes:
        activation: What turns an output into a score; the default of sentence-transformers is
            Sigmoid.
        max_seqlen: The longest pair, in tokens; None for what the model can read.
    """

    activation: DenseActivation = "Sigmoid"
    max_seqlen: int | None = None


class PooledScorer(nn.Module):
    """An encoder, pooling, and layers that end in one number.

    Args:
        encoder: The encoder that reads query and document together.
        pooling: How the vectors of the tokens become one.
        layers: The layers that turn it into a score.
    """

    settings = ClassifierSettings(labels=("relevance",), problem="regression")
    labels = settings.labels

    def __init__(self, encoder: Encoder, pooling: Poolings, layers: list[nn.Module]) -> None:
        super().__init__()
        self.config, self.encoder, self.pooling = encoder.config, encoder, pooling
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Compute scores: (num_sequences, 1) float32."""
        hidden = self.encoder(batch).float()
        scores: Tensor = self.layers(pool(hidden, batch, self.pooling))
        return scores


@dataclass(frozen=True)
class RerankerFolder:
    """What a folder says about scoring pairs.

    Attributes:
        place: The folder of the model and its tokenizer.
        settings: How the model is used.
        is_lowered: Whether texts are lowercased.
        pooling: The pooling of a model made of modules; None for a classifier.
        layers: The layers of a model made of modules.
    """

    place: Path
    settings: RerankerSettings
    is_lowered: bool
    pooling: Poolings | None = None
    layers: tuple[nn.Module, ...] = ()


def read_reranker(folder: Path) -> RerankerFolder:
    """Read what a model's folder says about scoring pairs.

    Raises:
        ModelFolderError: A file cannot be used, or a module is not supported.
        ConfigError: Settings contradict each other.
    """
    modules = read_modules(folder)
    said = read_prompt_file(RerankerFile, folder)
    place = folder / modules[0].path if modules else folder
    transformer = read_settings(TransformerFile, place / TRANSFORMER_FILE)
    settings = RerankerSettings(
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
        activation=_activation(folder, said.activation_fn, place),
        max_seqlen=transformer.max_seq_length,
    )
    if len(modules) < 2:
        return RerankerFolder(place, settings, transformer.do_lower_case)
    found = read_pooled_folder(folder)
    last: Any = found.layers[-1] if found.layers else None
    if getattr(getattr(last, "settings", None), "out_features", 0) != 1:
        raise ModelFolderError(f"{folder}: expected a Dense with one output as the last module")
    if not found.pooling.include_prompt and settings.prompts:
        raise ModelFolderError(f"{folder}: include_prompt: false is not supported for pairs")
    poolings = found.pooling.poolings
    return RerankerFolder(place, settings, transformer.do_lower_case, poolings, tuple(found.layers))


def _activation(folder: Path, said: str | None, place: Path) -> DenseActivation:
    """Return the activation that the folder names, wherever versions put it, or the default.

    Raises:
        ModelFolderError: The activation is not supported.
    """
    if said is not None:
        return activation_of(said, folder / SETTINGS_FILE)
    config = read_object(place / CONFIG_FILE)
    nested = config.get("sentence_transformers")
    named = nested.get("activation_fn") if isinstance(nested, dict) else None
    named = named or config.get("sbert_ce_default_activation_function")
    return "Sigmoid" if named is None else activation_of(str(named), place / CONFIG_FILE)


@dataclass(frozen=True)
class RankedDocument:
    """A document's index in the given list, and its score."""

    index: int
    score: float


class Reranker:
    """Scores pairs of a query and a document with a model that has one output.

    Args:
        model: A classifier with one label, on any device and in any precision.
        tokenizer: The tokenizer that the model was trained with.
        activation: What turns an output into a score; the default of sentence-transformers is
            Sigmoid.
        max_seqlen: The longest pair, in tokens; by default what the model can read.
        settings: Both of these and prompts, instead of the two arguments.

    Raises:
        ConfigError: The classifier has more than one output, or the activation is unknown.
        InputError: The tokenizer has another vocabulary, or the model cannot read sequences that
            long.
    """

    def __init__(
        self,
        model: SequenceClassifier | PooledScorer,
        tokenizer: Tokenizer,
        *,
        activation: DenseActivation = "Sigmoid",
        max_seqlen: int | None = None,
        settings: RerankerSettings | None = None,
    ) -> None:
        if len(model.labels) != 1:
            raise ConfigError(
                f"labels: got {len(model.labels)}, expected 1, the relevance; "
                "use Classifier for a model with several"
            )
        self.settings = settings or RerankerSettings(activation=activation, max_seqlen=max_seqlen)
        if self.settings.activation not in get_args(DenseActivation):
            expected = ", ".join(get_args(DenseActivation))
            raise ConfigError(
                f"activation: got {self.settings.activation!r}, expected one of {expected}"
            )
        scorer: Any = model
        self.classifier = Classifier(scorer, tokenizer, max_seqlen=self.settings.max_seqlen)
        self._activate: nn.Module = getattr(nn, self.settings.activation)()

    @property
    def activation(self) -> DenseActivation:
        """What turns an output into a score."""
        return self.settings.activation

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
    ) -> "Reranker":
        """Load a classifier with one output, such as a CrossEncoder of sentence-transformers.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.
            max_seqlen: As in the constructor.

        Raises:
            ModelFolderError: There is no such model, or it cannot be used.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: The model has several outputs, or the device does not support the
                precision.
        """
        wanted: tuple[ModelKind, ...] = ("reranker", "classifier")
        found = read_reranker(find_model(folder_or_hub_id, weights=True, wanted=wanted))
        settings = found.settings
        if max_seqlen is not None:
            settings = replace(settings, max_seqlen=max_seqlen)
        model: SequenceClassifier | PooledScorer
        if found.pooling is None:
            model, tokenizer = load_for_inference(SequenceClassifier, found.place, precision)
        else:
            encoder, tokenizer = load_for_inference(Encoder, found.place, precision)
            model = PooledScorer(encoder, found.pooling, list(found.layers))
            model.to(next(encoder.parameters()).device).requires_grad_(False).eval()
        tokenizer = tokenizer.lowercased() if found.is_lowered else tokenizer
        return cls(model, tokenizer, settings=settings)

    def scores(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        is_raw: bool = False,
        prompt_name: str | None = None,
        **options: Unpack[RunOptions],
    ) -> np.ndarray:
        """Compute the score of each pair of a query and a document.

        Args:
            pairs: Any number of pairs.
            is_raw: Whether to return the model's outputs unchanged, before any sigmoid. Losses of
                distillation learn from these.
            prompt_name: The prompt to put before the queries; by default the model's default.
            **options: As in `RunOptions`.

        Returns:
            (num_pairs,) float32.

        Raises:
            InputError: Something is not a pair of texts, or an option is not valid.
        """
        require_list(pairs, "pairs")
        found = self.stream(pairs, is_raw=is_raw, prompt_name=prompt_name, **options)
        return np.fromiter(found, np.float32)

    def stream(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        is_raw: bool = False,
        prompt_name: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Iterator[float]:
        """Compute the score of any number of pairs, in bounded memory.

        Args:
            pairs: Pairs of a query and a document, read when they are needed.
            is_raw: As `scores`.
            prompt_name: As `scores`.
            **options: As in `RunOptions`.

        Yields:
            The score of each pair, in order.
        """
        blocks = self.classifier.blocks(
            self.use(is_raw=is_raw, prompt_name=prompt_name), map(_as_pair, pairs), **options
        )
        for block in blocks:
            yield from block

    def use(
        self,
        *,
        is_raw: bool = False,
        prompt_name: str | None = None,
        cut: CutSide = "right",
    ) -> Use[Text, EncodedText, Tensor, float]:
        """Describe how pairs of a query and a document become scores.

        Args:
            is_raw: Whether to return the model's outputs unchanged.
            prompt_name: The prompt to put before the queries; by default the model's default.
            cut: The side on which pairs that are too long are truncated.

        Raises:
            InputError: The model does not have the prompt.
        """
        prompt = self.settings.prompt(None, prompt_name)

        def finish(_: Sequence[EncodedText], logits: Sequence[Tensor]) -> list[float]:
            outputs = torch.stack(list(logits))[:, 0]
            scores: list[float] = (outputs if is_raw else self.activate(outputs)).tolist()
            return scores

        plain = self.classifier.logits_use(cut=cut, prompt=prompt)
        return replace(plain, finish=finish)  # type: ignore[return-value, arg-type]

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        **options: Unpack[RunOptions],
    ) -> list[RankedDocument]:
        """Sort documents by how well they answer a query, best first.

        Args:
            query: What the documents should answer.
            documents: The texts to sort.
            top_k: The number of documents to return; all by default.
            **options: As in `RunOptions`.

        Returns:
            The documents with their scores; of equal scores, the earlier document is first.

        Raises:
            InputError: Something is not a text, or an option is not valid.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        require_list(documents, "documents")
        pairs = [(query, document) for document in documents]
        scores = self.scores(pairs, **options)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [RankedDocument(int(index), float(scores[index])) for index in order]

    def activate(self, outputs: Tensor) -> Tensor:
        """Turn outputs of any shape into scores."""
        scores: Tensor = self._activate(outputs)
        return scores


def _as_pair(pair: object) -> tuple[str, str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"pairs: got {type(pair).__name__}, expected pairs of query and document")
    return pair[0], pair[1]
