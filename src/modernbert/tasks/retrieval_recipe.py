"""`RetrievalRecipe`: all that decides the training of a retriever or of a reranker.

    model = "runs/books/model"
    output = "runs/retriever"                # the result will be runs/retriever/model

    [data]
    train = "train.jsonl"                    # or a folder of judged texts
    dev = "nfcorpus"

    [training]
    epochs = 1

Whatever is left out has the value that stands in the class.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modernbert.errors import SettingsError
from modernbert.model.pooling import Pooling
from modernbert.training.precision import Precision

Loss = Literal["in-batch", "margin", "kl", "binary"]


@dataclass(frozen=True, kw_only=True)
class RetrievalDataSettings:
    """What to learn from; see `tasks.retrieval_data` for the kinds of rows.

    train: rows with queries and documents, or a folder of judged texts.
    dev: the same, to evaluate on while training.
    train_split, dev_split: of the judgements of a folder.
    num_negatives: the most that are taken of a row; all when None.
    max_seqlen: the longest document in tokens; what the model reads when None.
    query_max_seqlen: the longest query in tokens; as documents when None.

    Raises:
        SettingsError: a number out of its range.
    """

    train: str
    dev: str | None = None
    train_split: str = "train"
    dev_split: str = "dev"
    num_negatives: int | None = None
    max_seqlen: int | None = None
    query_max_seqlen: int | None = None

    def __post_init__(self) -> None:
        if self.num_negatives is not None and self.num_negatives < 0:
            raise SettingsError(f"num_negatives: got {self.num_negatives}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class RetrievalTrainingSettings:
    """How to train.

    epochs: how often each row is seen.
    learning_rate: the highest; 5e-5 x 768 / hidden_size when None.
    weight_decay: of matrices and embeddings, a step at the highest rate: see `StableAdamW`.
    warmup_fraction: of the run; over the rest the rate goes down to 0, linearly.
    batch_size: queries of a step; with `in-batch` each one's document is a negative of the others.
    micro_batch_tokens: the most tokens whose activations are held at once; by device when None.
        Larger batches are computed twice, and the result is the same.
    loss: `in-batch`, `margin` or `kl` for retrieval, `binary`, `margin` or `kl` for reranking;
        when None, `margin` where the rows have scores, `in-batch` or `binary` where not.
    scale: what similarities are multiplied by; 20 for one vector a text and 1 else when None.
    matryoshka_dims: how many numbers of a vector should do by themselves, besides all of them.
    pooling: of a new retriever with one vector a text, and of a new reranker.
    query_prompt, document_prompt: what a new retriever puts before texts; by kind when None.
    dim: numbers of a vector of a new multi-vector model.
    skip_punctuation: whether such a model leaves punctuation out of documents.
    precision: what to compute in; the weights are float32.
    metric: by which the best weights are chosen.
    evaluations_per_epoch: on `dev`.
    patience: evaluations without a better one after which a run stops; None for never.
    seed: of new weights and of the order of the rows.

    Raises:
        SettingsError: a number out of its range.
    """

    epochs: int = 1
    learning_rate: float | None = None
    weight_decay: float = 1e-6
    warmup_fraction: float = 0.1
    batch_size: int = 32
    micro_batch_tokens: int | None = None
    loss: Loss | None = None
    scale: float | None = None
    matryoshka_dims: tuple[int, ...] = ()
    pooling: Pooling = "mean"
    query_prompt: str | None = None
    document_prompt: str | None = None
    dim: int = 128
    skip_punctuation: bool = False
    precision: Precision = "auto"
    metric: str = "ndcg@10"
    evaluations_per_epoch: int = 1
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch_tokens", "dim", "evaluations_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name}: got {value}, expected 1 or more")
        for name in ("learning_rate", "scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name}: got {value}, expected above 0")
        if not 0 <= self.warmup_fraction < 1:
            raise SettingsError(
                f"warmup_fraction: got {self.warmup_fraction}, expected from 0 to below 1"
            )
        if any(dim < 1 for dim in self.matryoshka_dims):
            raise SettingsError("matryoshka_dims: expected numbers from 1 on")
        if self.patience is not None and self.patience < 1:
            raise SettingsError(f"patience: got {self.patience}, expected 1 or more")
        if self.seed < 0:
            raise SettingsError(f"seed: got {self.seed}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class RetrievalRecipe:
    """The training of a retriever or of a reranker.

    model: folder or hub id of the model to begin with.
    output: the folder of all that comes of it.
    """

    model: str
    output: Path
    data: RetrievalDataSettings
    training: RetrievalTrainingSettings = field(default_factory=RetrievalTrainingSettings)
