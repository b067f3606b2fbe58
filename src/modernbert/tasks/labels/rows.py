"""The rows of a recipe, opened and checked: its tables, what is held out, and their labels."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modernbert.data.rows.cells import are_flags, as_list, flag, is_missing, number, plain
from modernbert.data.rows.table import IDS, Table, held_out
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError, InputError
from modernbert.model.config import EncoderConfig
from modernbert.tasks.labels.recipe import (
    CONTEXTS,
    AnswerRows,
    ClassifyRows,
    ClassWeights,
    LabelledRows,
    TagRows,
)
from modernbert.tasks.tuning.job import opened_model
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tokenizer.tokenizer import Tokenizer

_WHOLE_NUMBER = re.compile(r"([+-]?\d+)[.,]0*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class LabelledTables:
    """The model's config, the tokenizer and the tables of a recipe.

    Attributes:
        max_seqlen: The longest sequence, in tokens.
    """

    recipe: TuningRecipe
    data: LabelledRows
    config: EncoderConfig
    tokenizer: Tokenizer
    max_seqlen: int
    tables: Mapping[str, Table]

    @classmethod
    def open(cls, recipe: TuningRecipe) -> "LabelledTables":
        """Read everything that a recipe names.

        Raises:
            ModelFolderError: There is no such model.
            TokenizerError: The model has no tokenizer.
            DocumentError: A table cannot be read, or its ids are not distinct.
            InputError: The tokenizer has another vocabulary, or the model cannot read that length.
            SettingsError: The model has fewer layers than should be frozen.
        """
        config, tokenizer, max_seqlen = opened_model(recipe)
        data = recipe.data
        assert isinstance(data, LabelledRows)
        return cls(
            recipe=recipe,
            data=data,
            config=config,
            tokenizer=tokenizer,
            max_seqlen=max_seqlen,
            tables=_tables(data),
        )

    @property
    def train(self) -> Table:
        """The rows to learn from."""
        return self.tables["train"]

    def label_column(self, usual: Sequence[str]) -> str:
        """Return the one column of labels, scores, tags or answers.

        Raises:
            DocumentError: There is none.
            InputError: Several columns are asked for.
        """
        if len(self.data.label) > 1:
            raise InputError(f"label: got {len(self.data.label)} columns, expected one")
        asked = self.data.label[0] if self.data.label else None
        return self.train.find(usual, asked=asked, option="--label")


def _tables(data: LabelledRows) -> dict[str, Table]:
    """Read the table of each split; `dev` may be a share of the rows to learn from."""
    tables = {name: _read(source, data) for name, source in data.sources.items()}
    if data.dev_share is None:
        return tables
    train = tables["train"]
    chosen = _held_out(train, data, data.dev_share)
    if not any(chosen):
        raise InputError(
            f"--dev {data.dev}: is less than one row of {train.source} that can be spared; raise it"
        )
    kept, held = (
        train.only([row for row, is_out in enumerate(chosen) if is_out is side], fact)
        for side, fact in ((False, f"without the {data.dev} held out"), (True, f"{data.dev} of it"))
    )
    return {"train": kept, "dev": held, **{k: v for k, v in tables.items() if k == "test"}}


def _held_out(table: Table, data: LabelledRows, share: float) -> list[bool]:
    """Return which rows are held out; questions about one context stay together."""
    if isinstance(data, AnswerRows):
        context = table.find(CONTEXTS, asked=data.text_pair, option="--text-pair")
        return held_out([str(value) for value in table.values(context)], share)
    rows = range(len(table))
    if not isinstance(data, ClassifyRows | TagRows):
        return held_out(rows, share)
    labels = [_labels_of(row, table, data) for row in table.rows]
    is_single = all(len(each) == 1 for each in labels)
    return held_out(rows, share, labels=labels, stratify=is_single)


def _labels_of(row: Mapping[str, Any], table: Table, data: LabelledRows) -> list[str]:
    """Return the labels of a row as texts, in whichever columns and form they are written."""
    if len(data.label) > 1:
        return [name for name in data.label if flag(row.get(name))]
    name = next(iter(data.label), None) or table.first_of(data.usual_labels)
    value = row.get(name) if name is not None else None
    separator = getattr(data, "label_separator", None)
    if separator and isinstance(value, str):
        return value.split(separator)
    try:
        values = as_list(value)
    except DocumentError:  # which is told with its row when the labels are read
        values = None
    if values is None:
        return [str(value)]
    if are_flags([values]):
        return [str(place) for place, each in enumerate(values) if flag(each)]
    return [str(each) for each in values if not isinstance(each, dict | list | tuple)]


def _read(source: str, data: LabelledRows) -> Table:
    table = read_table(source, data, data.asked)
    if (column := table.first_of(IDS)) is not None:
        table.require_distinct(column)
    return table


def read_label_names(table: Table, column: str) -> list[str]:
    """Return the name of each row's label.

    An integer is one label however it is written: `1` and `1.0`, or `1,0` in a file with decimal
    commas. Labels that are not all numbers are texts.

    Raises:
        InputError: A row has no label, a number has a fraction, or the types of labels are mixed.
    """
    values = table.values(table.find([], asked=column, option="--label"))
    return _label_names(
        values,
        table.where,
        column,
        decimal_comma=table.decimal_comma,
    )


def row_label_names(values: Sequence[Any], where: str, column: str) -> list[str]:
    """Return the names of the several labels of one row; see `read_label_names`.

    Args:
        values: The values of the row, one per label.
        where: The name of the row, for messages.
        column: The column that holds them.
    """
    return _label_names(values, lambda index: f"{where}, value {index + 1}", column)


def _label_names(
    values: Sequence[Any],
    where: Callable[[int], str],
    column: str,
    *,
    decimal_comma: bool = False,
) -> list[str]:
    kinds: dict[str, int] = {}
    names = []
    for index, value in enumerate(values):
        kind, name = _label_name(value, index, where, column)
        kinds.setdefault(kind, index)
        names.append(name)
    if len(kinds) > 1:
        (kind, first), (other_kind, other) = list(kinds.items())[:2]
        raise InputError(
            f"{where(other)}: label {values[other]!r} is a {other_kind}, but {values[first]!r} in "
            f"{where(first).rpartition(', ')[2]} is a {kind}; write all labels alike"
        )
    found = [number(name, decimal_comma=decimal_comma) for name in names]
    if "truth value" in kinds or None in found:
        return names
    return [_without_fraction(name) for name in names]


def _without_fraction(name: str) -> str:
    """Return an integer without its `.0`, and anything else unchanged."""
    match = _WHOLE_NUMBER.fullmatch(name)
    return match[1] if match else name


def _label_name(
    value: object, index: int, where: Callable[[int], str], column: str
) -> tuple[str, str]:
    """Return the type of a label's value, and its name."""
    value = plain(value)
    if isinstance(value, bool):
        return "truth value", str(value).lower()
    if isinstance(value, str) and value.strip():
        return "text", value.strip()
    if isinstance(value, int):
        return "number", str(value)
    if isinstance(value, float) and value.is_integer():
        return "number", str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        raise InputError(
            f"{where(index)}: label {value!r} is a number with a fraction; "
            "to predict numbers, use `modernbert finetune regress`"
        )
    got = "nothing" if is_missing(value) else repr(value)
    raise InputError(
        f"{where(index)}: column {column!r}: got {got}, expected a label; add it or leave it out"
    )


def learn_labels(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the labels that occur, whole numbers by size and anything else by name.

    >>> learn_labels(["10", "9", "10"], "a.csv"), learn_labels(["b", "a"], "a.csv")
    (('9', '10'), ('a', 'b'))

    Raises:
        InputError: There are fewer than two.
    """
    labels = set(names)
    if len(labels) < 2:
        raise InputError(
            f"{source}: every row has the label {next(iter(labels))!r}; "
            "expected two labels or more to tell apart"
        )
    if all(label.lstrip("-").isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def label_indices(table: Table, names: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return the index of each row's label.

    Raises:
        InputError: The training data do not have the label.
    """
    known = {label: index for index, label in enumerate(labels)}
    for row, name in enumerate(names):
        if name not in known:
            raise InputError(
                f"{table.where(row)}: label {name!r} does not occur in the training data, "
                f"which have {shortened(labels)}; correct it or leave the row out"
            )
    return [known[name] for name in names]


def read_numbers(table: Table, column: str) -> list[float]:
    """Return the number of each row; a text that contains a number counts.

    Raises:
        InputError: A row has no number, or NaN or infinity.
    """
    values = table.values(table.find([], asked=column, option="--label"))
    return [_number(table, value, row, column) for row, value in enumerate(values)]


def _number(table: Table, value: Any, row: int, column: str) -> float:
    where = f"{table.where(row)}: column {column!r}"
    found = number(value, decimal_comma=table.decimal_comma)
    if found is None:
        got = "nothing" if is_missing(value) else repr(value)
        raise InputError(f"{where}: got {got}, expected a number such as 0.5")
    if not math.isfinite(found):
        raise InputError(f"{where}: the score is {found}; correct it or remove the row")
    return found


def shortened(labels: Sequence[str]) -> str:
    """Return the first few names of a list."""
    shown = ", ".join(map(repr, labels[:8]))
    return shown if len(labels) <= 8 else f"{shown} and {len(labels) - 8} more"


def counts_of(names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    counted = Counter(names)
    return {label: counted[label] for label in labels}


def label_weights(targets: Sequence[int], num_labels: int, chosen: ClassWeights) -> Tensor | None:
    """Return weights with which all labels count equally, with mean 1 over the rows; or None."""
    if chosen == "equal":
        return None
    counts = torch.bincount(torch.tensor(targets), minlength=num_labels)
    return len(targets) / (num_labels * counts.float())
