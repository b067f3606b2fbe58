"""The recipes of the verbs that learn labels: `classify`, `regress`, `tag` and `answer`.

Each has the data and the training settings that have an effect for it; see `tuning/recipe.py` for
what all fine-tunings share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, MinLen

from modernbert.data.rows.table import Table, TextColumns
from modernbert.data.rows.tagged import TAGS, TaggedColumns
from modernbert.settings import Doc, Pooling
from modernbert.tasks.tuning.recipe import RowSettings, RunSettings, TuningRecipe, Verb
from modernbert.word_splitting import SplitAt

ClassWeights = Literal["equal", "balanced"]

# The usual names of columns, in the order of preference.
LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "gold_label")
SCORES = ("score", "label", "similarity_score", "similarity", "target", "value", "rating", "stars")
QUESTIONS = ("question", "query")
CONTEXTS = ("context", "passage", "text", "document")
ANSWERS = ("answers", "answer")

_FOUND = "found by its name"
_POOLING = Doc("How the vectors of tokens become one: that of the first token, or the mean.")


@dataclass(frozen=True, kw_only=True)
class LabelledRows(RowSettings):
    """Which rows to learn from, and which of their columns."""

    text: Annotated[str | None, Doc("The column of the texts.", default=_FOUND)] = None
    label: Annotated[
        tuple[str, ...], Doc("The column of the numbers to learn.", default=_FOUND)
    ] = ()

    usual_labels: ClassVar[Sequence[str]] = SCORES

    @property
    def asked(self) -> list[str]:
        """The columns that are asked for by name."""
        names = self.text, getattr(self, "text_pair", None), *self.label
        return [name for name in names if name is not None]

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`."""
        for name in self.label or (None,):
            head.find(self.usual_labels, asked=name, option="--label")


@dataclass(frozen=True, kw_only=True)
class LabelledPairs(LabelledRows):
    """Rows that may have two texts."""

    text_pair: Annotated[str | None, Doc("The column of the second texts.", default=_FOUND)] = None

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`."""
        TextColumns.find(head, self.text, self.text_pair)
        super().require_columns(head)


@dataclass(frozen=True, kw_only=True)
class ClassifyRows(LabelledPairs):
    """Rows with labels of texts or of pairs.

    Attributes:
        labels: The labels in the order of the model's outputs; those of the training rows in
            their own order when empty.
    """

    label: Annotated[
        tuple[str, ...],
        Doc(
            "The column of the labels; several columns of 0 and 1 give several labels per text.",
            default=_FOUND,
        ),
    ] = ()
    label_separator: Annotated[
        str | None, MinLen(1), Doc("The separator of several labels in one column, such as '|'.")
    ] = None

    labels: tuple[str, ...] = ()

    usual_labels: ClassVar[Sequence[str]] = LABELS

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`; several columns of 0 and 1 may be labels, whatever their names."""
        if self.label or head.first_of(LABELS) is not None:
            super().require_columns(head)
        else:
            TextColumns.find(head, self.text, self.text_pair)


@dataclass(frozen=True, kw_only=True)
class TagRows(LabelledRows):
    """Rows with words and the label of each.

    Attributes:
        labels: As in `ClassifyRows`.
    """

    text: Annotated[str | None, Doc("The column of the words.", default=_FOUND)] = None
    label: Annotated[tuple[str, ...], Doc("The column of the tags.", default=_FOUND)] = ()
    split_words: Annotated[
        SplitAt | None,
        Doc(
            "Where the finished model splits texts into words: at blanks alone, at punctuation "
            "too, or at every character.",
            default="as in the training data",
        ),
    ] = None

    labels: tuple[str, ...] = ()

    usual_labels: ClassVar[Sequence[str]] = TAGS

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`."""
        TaggedColumns.find(head, self.text, next(iter(self.label), None))


@dataclass(frozen=True, kw_only=True)
class AnswerRows(LabelledPairs):
    """Rows with questions, texts and answers."""

    text: Annotated[str | None, Doc("The column of the questions.", default=_FOUND)] = None
    text_pair: Annotated[str | None, Doc("The column of the contexts.", default=_FOUND)] = None
    label: Annotated[tuple[str, ...], Doc("The column of the answers.", default=_FOUND)] = ()
    stride: Annotated[
        int | None,
        Ge(0),
        Doc(
            "Tokens by which neighbouring windows of a long context overlap.",
            default="128, or a quarter of a window",
        ),
    ] = None

    usual_labels: ClassVar[Sequence[str]] = ANSWERS

    def require_columns(self, head: Table) -> None:
        """See `RowSettings`; the answers may stand in later rows alone."""
        head.find(QUESTIONS, asked=self.text, option="--text")
        head.find(CONTEXTS, asked=self.text_pair, option="--text-pair")


@dataclass(frozen=True, kw_only=True)
class LabelTraining(RunSettings):
    """How to train on labels; see `RunSettings`."""

    former: ClassVar[Mapping[str, Any]] = {
        "pooling": "mean",
        "class_weights": "equal",
        "few_shot": False,
    }


@dataclass(frozen=True, kw_only=True)
class RegressTraining(LabelTraining):
    """How to train on numbers; see `RunSettings` for the rest."""

    pooling: Annotated[Pooling, _POOLING] = "mean"


@dataclass(frozen=True, kw_only=True)
class TagTraining(LabelTraining):
    """How to train on labels of words; see `RunSettings` for the rest."""

    class_weights: Annotated[
        ClassWeights, Doc("With `balanced`, rare labels count as much as frequent ones.")
    ] = "equal"


@dataclass(frozen=True, kw_only=True)
class ClassifyTraining(TagTraining):
    """How to train on labels of texts; see `RunSettings` for the rest."""

    pooling: Annotated[Pooling, _POOLING] = "mean"
    few_shot: Annotated[
        bool, Doc("Learn one label per text from a few rows, by contrasting pairs of them.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(TuningRecipe):
    """A fine-tuning that learns labels of texts."""

    data: ClassifyRows
    training: ClassifyTraining = field(default_factory=ClassifyTraining)


@dataclass(frozen=True, kw_only=True)
class RegressRecipe(TuningRecipe):
    """A fine-tuning that learns a number for each text."""

    data: LabelledPairs
    training: RegressTraining = field(default_factory=RegressTraining)


@dataclass(frozen=True, kw_only=True)
class TagRecipe(TuningRecipe):
    """A fine-tuning that learns labels of words."""

    data: TagRows
    training: TagTraining = field(default_factory=TagTraining)


@dataclass(frozen=True, kw_only=True)
class AnswerRecipe(TuningRecipe):
    """A fine-tuning that learns where answers stand."""

    data: AnswerRows
    training: LabelTraining = field(default_factory=LabelTraining)


VERBS = {
    "classify": Verb(
        "Learn labels of texts or of pairs of texts.",
        ClassifyRecipe,
        "labels.classification:open_classify",
    ),
    "regress": Verb(
        "Learn a number for each text or pair of texts.",
        RegressRecipe,
        "labels.regression:open_regress",
    ),
    "tag": Verb(
        "Learn labels of words, such as names of persons and places.",
        TagRecipe,
        "labels.tagging:open_tag",
    ),
    "answer": Verb(
        "Learn to find the answers to questions in texts.",
        AnswerRecipe,
        "labels.question_answering:open_answer",
    ),
}
