"""From rows of a table to examples: checking labels and numbers, and encoding texts and pairs."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modernbert.data.rows.cells import is_missing, number, plain
from modernbert.data.rows.table import Table, TextColumns
from modernbert.errors import InputError
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.tasks.labels.job import LabelledTables, use_of
from modernbert.tasks.labels.objective import Criterion, E, Split
from modernbert.tasks.labels.recipe import ClassWeights, LabelledPairs
from modernbert.tasks.tuning.job import TuningJob
from modernbert.tasks.tuning.page import shown

_WHOLE_NUMBER = re.compile(r"([+-]?\d+)[.,]0*", re.ASCII)


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
    """The labels that occur, whole numbers by size and anything else by name.

    >>> learn_labels(["10", "9", "10"], "a.csv"), learn_labels(["b", "a"], "a.csv")
    (('9', '10'), ('a', 'b'))

    Raises:
        InputError: Fewer than two.
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
    """Count the rows of each label."""
    counted = Counter(names)
    return {label: counted[label] for label in labels}


def label_weights(targets: Sequence[int], num_labels: int, chosen: ClassWeights) -> Tensor | None:
    """Return weights with which all labels count equally, with mean 1 over the rows; or None."""
    if chosen == "equal":
        return None
    counts = torch.bincount(torch.tensor(targets), minlength=num_labels)
    return len(targets) / (num_labels * counts.float())


def text_job(
    source: LabelledTables,
    criterion: Criterion[E],
    make: Mapping[str, Sequence[Callable[[list[int]], E]]],
    *,
    verb: str,
    settings: ClassifierSettings,
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> TuningJob:
    """The job of learning from the texts of some tables.

    Args:
        source: The tables of the recipe, with their labels.
        criterion: What outputs should be.
        make: For each split and each of its rows, what makes an example of the row's token ids.
        verb: Its name on the command line.
        settings: Of the model's head.
        facts: More about the data.
        notes: What a user should know about the labels.

    Raises:
        DocumentError: No column of texts, or a row without one.
    """
    assert isinstance(source.data, LabelledPairs)
    columns = TextColumns.find(source.train, source.data.text, source.data.text_pair)
    encoder = TextEncoder(source.tokenizer, source.max_seqlen)
    splits, notes = {}, list(notes)
    for name, table in source.tables.items():
        texts = columns.read(table)
        encoded = encoder(texts)
        notes += _notes(table, texts, encoded, source.max_seqlen)
        splits[name] = Split(
            table.source,
            [each(row.token_ids) for each, row in zip(make[name], encoded, strict=True)],
            [shown(text) for text in texts],
        )
    return source.job(
        verb,
        criterion,
        splits,
        SequenceClassifier,
        settings,
        use_of(
            "Classifier",
            "text-classification",
            "a label or a number for a text",
            '"A text."',
        ),
        notes=notes,
        facts={"texts": str(columns), "longest sequence": source.max_seqlen, **facts},
    )


def _notes(
    table: Table, texts: Sequence[Text], encoded: Sequence[EncodedText], max_seqlen: int
) -> list[str]:
    notes = []
    if cut := sum(each.is_truncated for each in encoded):
        notes.append(
            f"{table.source}: {cut:,} of {len(texts):,} texts are longer than {max_seqlen:,} "
            "tokens and are cut there"
        )
    if empty := sum(not "".join(text) for text in texts):
        notes.append(f"{table.source}: {empty:,} of {len(texts):,} texts are empty")
    return notes
