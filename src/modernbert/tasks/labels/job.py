"""`Job`: what a fine-tuning is for, with all its data read, checked and encoded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, Literal, Protocol

from torch import Tensor

from modernbert.data.rows.table import Table
from modernbert.data.rows.tables import read_table
from modernbert.errors import InputError
from modernbert.inference.loading import longest_sequence, require_same_vocabulary
from modernbert.metrics.classification import LabelFigures
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import SequenceClassifier, SpanClassifier, TokenClassifier
from modernbert.tasks.labels.recipe import DataSettings, FineTuningRecipe
from modernbert.tasks.tuning.fine_tuning import E, Objective
from modernbert.tasks.tuning.first_model import require_layers
from modernbert.tokenizer.tokenizer import Tokenizer

Verb = Literal["classify", "regress", "tag", "answer"]
Model = SequenceClassifier | TokenClassifier | SpanClassifier


@dataclass(frozen=True)
class Mistake:
    """An example that a model is wrong about, or was least sure of.

    doubt: how wrong; the largest are shown.
    """

    doubt: float
    text: str
    expected: str
    predicted: str


@dataclass(frozen=True, kw_only=True)
class Review:
    """A closer look at predictions, for the report.

    labels: figures of each label.
    confusion: rows of each label by the label that they were given, or None.
    mistakes: the worst first.
    """

    labels: Sequence[LabelFigures] = ()
    confusion: Sequence[Sequence[int]] | None = None
    mistakes: Sequence[Mistake] = ()


@dataclass(frozen=True)
class Split(Generic[E]):
    """The examples of one table; what was read of each, for a person, stands in `shown`."""

    source: str
    examples: Sequence[E]
    shown: Sequence[str]


class ReviewedObjective(Objective[E], Protocol[E]):
    """An objective that looks closer at outputs, for the report."""

    def review(self, outputs: Sequence[Tensor], split: Split[E], /) -> Review:
        """Figures of each label, and what the model is most wrong about."""


@dataclass(frozen=True, kw_only=True)
class Job(Generic[E]):
    """One kind of fine-tuning on given data, from a given model.

    verb: its name on the command line.
    build: a model before its first step, from a seed.
    load: a model of this kind from a folder.
    notes: what a user should know of the data, a line each.
    facts: more of the data, by name, for the model's card.
    """

    verb: Verb
    objective: ReviewedObjective[E]
    tokenizer: Tokenizer
    config: EncoderConfig
    build: Callable[[int], Model]
    load: Callable[[str], Model]
    train: Split[E]
    dev: Split[E] | None = None
    test: Split[E] | None = None
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of all examples, their targets included.

        Those of `dev` choose the weights and those of `test` are in the results, so they count.
        """
        digest = sha256()
        for split in (self.train, self.dev, self.test):
            digest.update(b"split")
            for example in split.examples if split else ():
                digest.update(repr(example).encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Source:
    """The model and the tables of a recipe, opened.

    max_seqlen: the longest sequence, in tokens.
    """

    recipe: FineTuningRecipe
    config: EncoderConfig
    tokenizer: Tokenizer
    max_seqlen: int
    train: Table
    dev: Table | None
    test: Table | None

    @classmethod
    def open(cls, recipe: FineTuningRecipe) -> "Source":
        """Read what a recipe names.

        Raises:
            ModelFolderError: no such model.
            TokenizerError: no tokenizer beside it.
            DocumentError: a table that cannot be read, or whose ids are not distinct.
            InputError: a tokenizer of another vocabulary, or a length that the model cannot read.
            SettingsError: more layers to freeze than there are.
        """
        config = EncoderConfig.from_pretrained(recipe.model)
        require_layers(config, recipe.training)
        tokenizer = Tokenizer.from_pretrained(recipe.model)
        require_same_vocabulary(config, tokenizer)
        data = recipe.data
        return cls(
            recipe=recipe,
            config=config,
            tokenizer=tokenizer,
            max_seqlen=longest_sequence(config, tokenizer, data.max_seqlen),
            train=_read(data.train),
            dev=None if data.dev is None else _read(data.dev),
            test=None if data.test is None else _read(data.test),
        )

    @property
    def data(self) -> DataSettings:
        """What the recipe says about its data."""
        return self.recipe.data

    @property
    def tables(self) -> dict[str, Table]:
        """Those that there are, by the name of the split."""
        named = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: table for name, table in named.items() if table is not None}

    def label_column(self, usual: Sequence[str]) -> str:
        """The one column of labels, scores, tags or answers.

        Raises:
            DocumentError: there is none.
            InputError: several are asked for.
        """
        if len(self.data.label) > 1:
            raise InputError(f"label: got {len(self.data.label)} columns, expected one")
        asked = self.data.label[0] if self.data.label else None
        return self.train.find(usual, asked=asked, option="--label")


def _read(source: str) -> Table:
    table = read_table(source)
    if (column := table.first_of(["id", "_id", "idx", "guid"])) is not None:
        table.require_distinct(column)
    return table
