"""The recipes of the verbs that learn rankings, such as `retrieve`, and of `mine`.

Each has the data and the training settings that have an effect for it; see `tuning/recipe.py` for
what all fine-tunings share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from modernbert.data.rows.table import Table
from modernbert.errors import SettingsError
from modernbert.settings import Doc, Pooling, Settings, SparsePooling
from modernbert.tasks.ranking.data import examples_of_table
from modernbert.tasks.tuning.recipe import RowSettings, RunSettings, TuningRecipe, Verb

RetrievalLoss = Literal["in-batch", "margin", "kl", "listnet", "lambda"]
RerankLoss = Literal["binary", "margin", "kl", "mse", "listnet", "lambda"]

_POOLING = Doc("How the vectors of tokens become one in a new model.")


@dataclass(frozen=True, kw_only=True)
class RankedRows(RowSettings):
    """What to learn from: rows with queries and documents, or a folder of judged texts.

    `tasks.ranking.data` describes the kinds of rows.
    """

    train: Annotated[
        str,
        Doc(
            "Rows with query, positive and perhaps negatives and scores, or with query, document "
            "and label; or a BEIR folder of corpus, queries and qrels."
        ),
    ]
    train_split: Annotated[str, Doc("The split of a BEIR folder to learn from.")] = "train"
    dev_split: Annotated[str, Doc("The split of a BEIR folder to evaluate on.")] = "dev"
    test_split: Annotated[str, Doc("The split of a BEIR folder to score at the end.")] = "test"
    more: Annotated[
        tuple[str, ...],
        Doc(
            "More rows to learn from; FILE=2 shows each row twice an epoch, FILE=0.5 half of the "
            "rows. Each step has rows of one file. May be repeated.",
        ),
    ] = ()
    num_negatives: Annotated[
        int | None,
        Ge(0),
        Doc("The most negatives taken from a row.", default="all", flags=("--negatives",)),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for each in self.more:
            if weight_of(each)[1] <= 0:
                raise SettingsError(f"more: got {each!r}, expected a weight above 0")

    @property
    def weighted(self) -> tuple[tuple[str, float], ...]:
        """All rows to learn from, `train` first, each with how often a row is seen in an epoch."""
        return ((self.train, 1.0), *map(weight_of, self.more))

    @property
    def sources(self) -> dict[str, str]:
        """See `RowSettings`; the others by their number."""
        more = {f"more[{number}]": weight_of(each)[0] for number, each in enumerate(self.more)}
        return {**super().sources, **more}

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`."""
        examples_of_table(head)


def weight_of(source: str) -> tuple[str, float]:
    """Divide the name of some rows and their weight, which is 1 if none is given.

    >>> weight_of("a.jsonl=0.5"), weight_of("a=b.jsonl")
    (('a.jsonl', 0.5), ('a=b.jsonl', 1.0))
    """
    name, _, weight = source.rpartition("=")
    try:
        return (name, float(weight)) if name else (source, 1.0)
    except ValueError:
        return source, 1.0


@dataclass(frozen=True, kw_only=True)
class RetrievalRows(RankedRows):
    """What a retriever learns from."""

    query_max_seqlen: Annotated[
        int | None, Doc("The longest query, in tokens.", default="that of documents")
    ] = None


@dataclass(frozen=True, kw_only=True)
class RankingTraining(RunSettings):
    """How to train on rankings; see `RunSettings` for the rest.

    A row is a query with its documents. Steps of more than `micro_batch_tokens` are computed twice.
    """

    former: ClassVar[Mapping[str, Any]] = {
        "matryoshka_dims": [],
        "pooling": "mean",
        "dim": 128,
        "skip_punctuation": False,
    }

    epochs: Annotated[int, Ge(1), Doc("How often each row is seen.")] = 1
    batch_size: Annotated[int, Ge(1), Doc("Queries per step.")] = 32
    batch_tokens: Annotated[
        int | None,
        Ge(1),
        Doc("Tokens per step, queries and documents, instead of a number of queries."),
    ] = None
    scale: Annotated[
        float | None,
        Gt(0),
        Doc("Multiply similarities by this number.", default="20 for one vector per text, else 1"),
    ] = None
    metric: Annotated[str, Doc("The score that chooses the best weights.")] = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class VectorTraining(RankingTraining):
    """How to train a model of vectors; see `RankingTraining` for the rest."""

    loss: Annotated[
        RetrievalLoss | None,
        Doc(
            "in-batch learns from the other documents of a step, margin and kl from a teacher's "
            "scores, listnet and lambda from scores or labels.",
            default="margin where the rows have scores, otherwise in-batch",
        ),
    ] = None
    negative_margin: Annotated[
        float | None,
        Ge(0),
        Doc(
            "With in-batch, leave out documents whose similarity is within this margin of the "
            "answer's, as they may answer too.",
            default="keep them",
        ),
    ] = None
    negative_ratio: Annotated[
        float | None,
        Interval(gt=0, le=1),
        Doc(
            "With in-batch, leave out documents whose similarity is above this share of the "
            "answer's, such as 0.95.",
            default="keep them",
        ),
    ] = None
    query_prompt: Annotated[str | None, Doc("A text before each query.", default="the model's")] = (
        None
    )
    document_prompt: Annotated[
        str | None, Doc("A text before each document.", default="the model's")
    ] = None

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that take the place of the model's, by side."""
        asked = {"query": self.query_prompt, "document": self.document_prompt}
        return {side: text for side, text in asked.items() if text is not None}


@dataclass(frozen=True, kw_only=True)
class RetrieveTraining(VectorTraining):
    """How to train a model of one vector per text; see `VectorTraining` for the rest."""

    matryoshka_dims: Annotated[
        tuple[Annotated[int, Ge(1)], ...],
        Doc(
            "Also train the first N dimensions to work alone; may be repeated.",
            flags=("--matryoshka",),
        ),
    ] = ()
    pooling: Annotated[Pooling, _POOLING] = "mean"


@dataclass(frozen=True, kw_only=True)
class LateInteractionTraining(VectorTraining):
    """How to train a model of one vector per token; see `VectorTraining` for the rest."""

    dim: Annotated[int, Ge(1), Doc("Dimensions of the vectors of a new model.")] = 128
    skip_punctuation: Annotated[bool, Doc("Leave punctuation out of documents in a new model.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class SparseTraining(VectorTraining):
    """How to train a model of weights of the vocabulary; see `VectorTraining` for the rest."""

    former: ClassVar[Mapping[str, Any]] = {}

    query_regularization: Annotated[
        float, Ge(0), Doc("The penalty on many weights in queries (FLOPS).")
    ] = 5e-5
    document_regularization: Annotated[
        float, Ge(0), Doc("The penalty on many weights in documents (FLOPS).")
    ] = 3e-5
    pooling: Annotated[
        SparsePooling, Doc("How the weights of a token at several places of a text become one.")
    ] = "max"


@dataclass(frozen=True, kw_only=True)
class RerankTraining(RankingTraining):
    """How to train a reranker; see `RankingTraining` for the rest."""

    loss: Annotated[
        RerankLoss | None,
        Doc(
            "binary learns which documents answer; margin, kl and mse learn from a teacher's "
            "scores, listnet and lambda from scores or labels.",
            default="margin where the rows have scores, otherwise binary",
        ),
    ] = None
    pooling: Annotated[Pooling, _POOLING] = "mean"


@dataclass(frozen=True, kw_only=True)
class RetrieveRecipe(TuningRecipe):
    """The training of a retriever with one vector per text."""

    data: RetrievalRows
    training: RetrieveTraining = field(default_factory=RetrieveTraining)


@dataclass(frozen=True, kw_only=True)
class LateInteractionRecipe(TuningRecipe):
    """The training of a retriever with one vector per token."""

    data: RetrievalRows
    training: LateInteractionTraining = field(default_factory=LateInteractionTraining)


@dataclass(frozen=True, kw_only=True)
class SparseRecipe(TuningRecipe):
    """The training of a retriever with weights of the vocabulary."""

    data: RetrievalRows
    training: SparseTraining = field(default_factory=SparseTraining)


@dataclass(frozen=True, kw_only=True)
class RerankRecipe(TuningRecipe):
    """The training of a reranker."""

    data: RankedRows
    training: RerankTraining = field(default_factory=RerankTraining)


VERBS = {
    "retrieve": Verb(
        "Learn one vector per text, for retrieval.",
        RetrieveRecipe,
        "ranking.retrieval:open_retrieve",
    ),
    "late-interaction": Verb(
        "Learn one vector per token, for retrieval (ColBERT).",
        LateInteractionRecipe,
        "ranking.retrieval:open_late_interaction",
    ),
    "sparse": Verb(
        "Learn sparse vectors over the vocabulary (SPLADE).",
        SparseRecipe,
        "ranking.retrieval:open_sparse",
    ),
    "rerank": Verb(
        "Learn to score a query and a document together.",
        RerankRecipe,
        "ranking.rerank:open_rerank",
    ),
}


@dataclass(frozen=True, kw_only=True)
class MiningSettings(Settings):
    """Which documents count as hard negatives.

    Raises:
        SettingsError: A value is out of its range.
    """

    negatives: Annotated[int, Ge(1), Doc("The most negatives for each query.")] = 4
    skip: Annotated[int, Ge(0), Doc("Leave out this many of the nearest documents.")] = 0
    depth: Annotated[int, Doc("Consider this many of the nearest documents.")] = 100
    margin: Annotated[
        float, Ge(0), Doc("How far a negative's score must be below the answer's.")
    ] = 0.0
    ratio: Annotated[
        float | None,
        Interval(gt=0, le=1),
        Doc("The highest score of a negative, relative to the answer's, such as 0.95."),
    ] = None
    limit_by: Annotated[
        Literal["retriever", "teacher"],
        Doc("Whose scores --margin and --ratio compare; a teacher then scores all candidates."),
    ] = "retriever"

    by: Annotated[
        Literal["vectors", "bm25"],
        Doc("Rank documents by the model's vectors, or by words (BM25), without the model."),
    ] = "vectors"
    language: Annotated[
        str, Doc("With BM25, the language whose stems and stop words are used; none for neither.")
    ] = "english"

    def __post_init__(self) -> None:
        super().__post_init__()
        is_limited = self.margin > 0 or self.ratio is not None
        if self.by == "bm25" and is_limited and self.limit_by == "retriever":
            raise SettingsError(
                "margin and ratio: compare scores of the model, which by = 'bm25' does not "
                "compute; leave them out, or set limit_by = 'teacher'"
            )
        if self.depth <= self.skip:
            raise SettingsError(
                f"depth: got {self.depth}, expected more than skip, which is {self.skip}"
            )
