"""The models with a head: masked tokens, labels of texts and tokens, answers, sparse weights.

All heads begin with the same block, so a fine-tuned model can start from the one that pretraining
learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import classifier_fields, encoder_numbers
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.layer import ACTIVATIONS, norm_for
from modernbert.model.pooling import Pooling, pool
from modernbert.model.pretrained import DECODER_WEIGHT, SavedModel
from modernbert.model.products import linear
from modernbert.settings import SparsePooling
from modernbert.word_splitting import WordSplitting

ProblemType = Literal["single_label", "multi_label", "regression"]

SparseActivation = Literal["relu", "log1p_relu"]

_ROWS_AT_ONCE = 256


class PredictionHead(nn.Module):
    """The block `norm(gelu(dense(x)))`, without a bias in the paper (P section 2.1.1)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = config.head_activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.head_bias)
        self.norm = norm_for(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the block: (rows, hidden_size) to the same shape."""
        normed: Tensor = self.norm(
            ACTIVATIONS[self.activation](linear(hidden, self.dense.weight, self.dense.bias))
        )
        return normed


class MaskedLanguageModel(SavedModel):
    """An encoder that says which token stands at a place (P section 2.1.1).

    The decoder's matrix is the token embedding, unless the config says that it is not tied; its
    bias is a parameter of its own.

    >>> from modernbert.model.initialize import initialize
    >>> config = EncoderConfig.preset("tiny", vocab_size=512)
    >>> model = initialize(MaskedLanguageModel(config), seed=0)
    >>> batch = PackedBatch.from_sequences([[5, 6, 7], [8, 9]])
    >>> model(batch).shape, model(batch, rows=torch.tensor([1])).shape
    (torch.Size([5, 512]), torch.Size([1, 512]))
    """

    kind = "masked_lm"

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = PredictionHead(config)
        self.decoder_bias = nn.Parameter(torch.zeros(config.vocab_size))
        if not config.tied_decoder:
            # Put here by hand: `decoder_weight` is a property, as it mostly is no parameter.
            own = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self._parameters[DECODER_WEIGHT] = nn.Parameter(own.weight)

    @property
    def decoder_weight(self) -> Tensor:
        """The decoder's matrix, (vocab_size, hidden_size); the token embedding if they are tied."""
        own = self._parameters.get(DECODER_WEIGHT)
        return self.encoder.embeddings.tok_embeddings.weight if own is None else own

    def forward(
        self, batch: PackedBatch, rows: Tensor | None = None, *, dropout: Dropout | None = None
    ) -> Tensor:
        """Compute the logits of all tokens or of some.

        Args:
            batch: The sequences, packed one after another.
            rows: (num_rows,) int64 indices into the flat batch; other tokens are not decoded.
            dropout: Dropout of the attention outputs, in training.

        Returns:
            (total_tokens, vocab_size), or (num_rows, vocab_size).

        Raises:
            InputError: A token id is outside the vocabulary.
        """
        hidden = self.encoder(batch, dropout=dropout)
        return self.logits(hidden if rows is None else hidden[rows])

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to hidden states: (rows, hidden_size) to (rows, vocab_size)."""
        return functional.linear(self.head(hidden), self.decoder_weight, self.decoder_bias)


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """What a classifier's outputs mean.

    Attributes:
        labels: The name of each output, in their order.
        pooling: How the vectors of a text's tokens become one; not used for tokens.
        problem: Whether a text has one label, any number of labels, or numbers.
        splitting: How running text is split into words that are classified.
        temperature: What outputs are divided by before they become probabilities.
        thresholds: The probability of each label from which on a text has it, where it may have
            any number of labels; 0.5 for all when None.
    """

    labels: tuple[str, ...]
    pooling: Pooling = "cls"
    problem: ProblemType = "single_label"
    splitting: WordSplitting | None = None
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature: got {self.temperature}, expected a number above 0")
        if self.thresholds is not None:
            self._check_thresholds(self.thresholds)
        if not self.labels:
            raise ConfigError("labels: got none, expected the name of each output")
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError("labels: a name occurs twice")

    def _check_thresholds(self, thresholds: tuple[float, ...]) -> None:
        if self.problem != "multi_label" or len(thresholds) != len(self.labels):
            raise ConfigError(
                f"thresholds: got {len(thresholds)}, expected one for each of the "
                f"{len(self.labels)} labels of a model of several labels a text"
            )
        if not all(0 <= each <= 1 for each in thresholds):
            raise ConfigError("thresholds: expected numbers from 0 to 1")


class _Classifier(SavedModel):
    """An encoder, the prediction block, and a linear layer with one output per label."""

    def __init__(self, config: EncoderConfig, settings: ClassifierSettings) -> None:
        super().__init__()
        self.config = config
        self.settings = settings
        self.encoder = Encoder(config)
        self.head = PredictionHead(config)
        self.classifier = nn.Linear(config.hidden_size, len(settings.labels))

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to hidden states: (rows, hidden_size) to (rows, num_labels)."""
        logits: Tensor = self.classifier(self.head(hidden))
        return logits

    @property
    def labels(self) -> Sequence[str]:
        """The name of each output."""
        return self.settings.labels

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Make a model of the shape that a config.json describes, before its weights are read."""
        settings = ClassifierSettings(**classifier_fields(published))
        return cls(EncoderConfig(**encoder_numbers(published)), settings)

    def classifier_fields(self) -> Mapping[str, Any]:
        """Return what config.json says about the labels."""
        return vars(self.settings)


class SequenceClassifier(_Classifier):
    """Classifies texts; pooling comes before the prediction block."""

    kind = "classifier"
    is_of_texts = True

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """Compute the logits of each sequence, or the numbers of a regression.

        Args:
            batch: The sequences, packed one after another.
            dropout: What to drop; nothing by default.

        Returns:
            (num_sequences, num_labels).
        """
        hidden = self.encoder(batch, dropout=dropout)
        return self.logits(pool(hidden, batch, self.settings.pooling))


class TokenClassifier(_Classifier):
    """Classifies every token."""

    kind = "tagger"

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """Compute the logits of each token.

        Args:
            batch: The sequences, packed one after another.
            dropout: What to drop; nothing by default.

        Returns:
            (total_tokens, num_labels).
        """
        return self.logits(self.encoder(batch, dropout=dropout))


class SpanClassifier(_Classifier):
    """Predicts for every token whether an answer begins or ends there."""

    kind = "answerer"
    outputs = ("start_logits", "end_logits")

    def __init__(self, config: EncoderConfig, settings: ClassifierSettings) -> None:
        if len(settings.labels) != 2:
            raise ConfigError(
                f"labels: got {len(settings.labels)}, expected 2: where an answer begins and ends"
            )
        super().__init__(config, settings)

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """Compute, for each token, the logits that an answer begins and ends there.

        Args:
            batch: The sequences, packed one after another.
            dropout: What to drop; nothing by default.

        Returns:
            (total_tokens, 2).
        """
        return self.logits(self.encoder(batch, dropout=dropout))


HEADS: tuple[type[SavedModel], ...] = (
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
    SpanClassifier,
)
"""All models with a head; fine-tuning takes over what it can of each, and export knows them."""


def token_weights(
    model: MaskedLanguageModel,
    hidden: Tensor,
    batch: PackedBatch,
    *,
    pooling: SparsePooling = "max",
    activation: SparseActivation = "relu",
) -> Tensor:
    """Compute the weights of all tokens of the vocabulary for each sequence (SPLADE).

    A token's weight is `log(1 + relu(logit))`, pooled over the places of a text (arXiv 2109.10086).
    The logits of a few rows at a time are held, and not those of the whole batch; gradients flow.

    Args:
        model: The model, whose head and decoder are used.
        hidden: (total_tokens, hidden_size), what its encoder made of the batch.
        batch: The sequences, packed one after another.
        pooling: The largest weight over the places of a sequence, or their sum.
        activation: `log1p_relu` takes the logarithm twice (arXiv 2504.14839).

    Returns:
        (num_sequences, vocab_size) float32.
    """
    pooled: dict[int, Tensor] = {}
    borders = batch.cu_seqlens.tolist()
    sequence = 0
    for start in range(0, len(hidden), _ROWS_AT_ONCE):
        logits = model.logits(hidden[start : start + _ROWS_AT_ONCE]).float()
        end = start + len(logits)
        while sequence < batch.num_sequences and borders[sequence] < end:
            first, last = max(borders[sequence], start), min(borders[sequence + 1], end)
            rows = logits[first - start : last - start]
            part = rows.amax(0) if pooling == "max" else _activated(rows, activation).sum(0)
            if (before := pooled.get(sequence)) is not None:
                part = torch.maximum(before, part) if pooling == "max" else before + part
            pooled[sequence] = part
            if borders[sequence + 1] > end:
                break
            sequence += 1
    weights = torch.stack([pooled[place] for place in range(batch.num_sequences)])
    # The weight grows with the logit, so that of the largest is the largest.
    return _activated(weights, activation) if pooling == "max" else weights


def _activated(logits: Tensor, activation: SparseActivation) -> Tensor:
    weights = logits.relu().log1p()
    return weights.log1p() if activation == "log1p_relu" else weights
