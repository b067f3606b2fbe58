"""`RetrievalRecipe`: all that decides the training of a retriever or of a reranker.

    model = "runs/books/model"
    output = "runs/retriever"                # the result will be runs/retriever/model

    [data]
    train = "train.jsonl"                    # or a folder of judged texts
    dev = "nfcorpus"

    [training]
    epochs = 1

    [sweep]                                  # only for several runs
    seeds = [0, 1, 2]

Whatever is left out has the value that stands in the class.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modernbert.errors import SettingsError
from modernbert.model.pooling import Pooling
from modernbert.tasks.tuning.run_settings import Run, RunSettings, SweepSettings, runs_of

Loss = Literal["in-batch", "margin", "kl", "binary"]


@dataclass(frozen=True, kw_only=True)
class RetrievalDataSettings:
    """What to learn from; see `tasks.ranking.data` for the kinds of rows.

    train: rows with queries and documents, or a folder of judged texts.
    dev: the same, to evaluate on while training.
    test: the same, to score once with the weights that are kept.
    train_split, dev_split, test_split: of the judgements of a folder.
    num_negatives: the most that are taken of a row; all when None.
    max_seqlen: the longest document in tokens; what the model reads when None.
    query_max_seqlen: the longest query in tokens; as documents when None.

    Raises:
        SettingsError: a number out of its range.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    train_split: str = "train"
    dev_split: str = "dev"
    test_split: str = "test"
    num_negatives: int | None = None
    max_seqlen: int | None = None
    query_max_seqlen: int | None = None

    def __post_init__(self) -> None:
        if self.num_negatives is not None and self.num_negatives < 0:
            raise SettingsError(f"num_negatives: got {self.num_negatives}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class RetrievalTrainingSettings(RunSettings):
    """How to train; see `RunSettings` for the rest.

    A row is a query with its documents: `batch_size` counts queries, of which each one's document
    is a negative of the others with `in-batch`, and `batch_tokens` the tokens of queries with their
    documents. What is more than `micro_batch_tokens` is computed twice.

    epochs: how often each row is seen.
    loss: `in-batch`, `margin` or `kl` for retrieval, `binary`, `margin` or `kl` for reranking;
        when None, `margin` where the rows have scores, `in-batch` or `binary` where not.
    scale: what similarities are multiplied by; 20 for one vector a text and 1 else when None.
    matryoshka_dims: how many numbers of a vector should do by themselves, besides all of them.
    pooling: of a new retriever with one vector a text, and of a new reranker.
    query_prompt, document_prompt: what a new retriever puts before texts; by kind when None.
    dim: numbers of a vector of a new multi-vector model.
    skip_punctuation: whether such a model leaves punctuation out of documents.
    metric: by which the best weights are chosen.

    Raises:
        SettingsError: a number out of its range.
    """

    epochs: int = 1
    loss: Loss | None = None
    scale: float | None = None
    matryoshka_dims: tuple[int, ...] = ()
    pooling: Pooling = "mean"
    query_prompt: str | None = None
    document_prompt: str | None = None
    dim: int = 128
    skip_punctuation: bool = False
    metric: str = "ndcg@10"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 1:
            raise SettingsError(f"dim: got {self.dim}, expected 1 or more")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise SettingsError(f"scale: got {self.scale}, expected above 0")
        if any(dim < 1 for dim in self.matryoshka_dims):
            raise SettingsError("matryoshka_dims: expected numbers from 1 on")


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
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def runs(self) -> list[Run[RetrievalTrainingSettings]]:
        """All runs, the seeds of one combination beside each other."""
        return runs_of(self.training, self.sweep)
