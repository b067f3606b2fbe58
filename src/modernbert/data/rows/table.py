"""`Table`: labelled rows with named columns; the columns that are meant, and rows held out."""

import difflib
import random
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modernbert.data.rows.cells import shown
from modernbert.errors import DocumentError, SettingsError

Row = Mapping[str, Any]
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
_MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in their order, all in memory, since labelled data are small compared to a corpus.

    Attributes:
        source: The file or data set that they come from.
        columns: Their names, in the order of the source.
        facts: How the source was understood, such as "comma-separated".
        decimal_comma: Whether numbers may have a comma before the fraction.
        numbers: The number of each row in the source, from 1, where some of its rows are left out.
        has_header: Whether a line of the file named the columns, which may have been a row of data.
    """

    source: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    facts: Sequence[str] = ()
    decimal_comma: bool = False
    has_header: bool = False
    numbers: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Return the name of a row for messages.

        >>> Table(source="a.csv", columns=("text",), rows=[{"text": "x"}]).where(0)
        'a.csv, row 1'
        """
        return f"{self.source}, row {self.numbers[index] if self.numbers else index + 1}"

    def only(self, rows: Sequence[int], fact: str) -> "Table":
        """Return some of the rows, by their indices.

        Args:
            rows: The indices of the rows, from 0.
            fact: Which rows they are, in words.
        """
        return replace(
            self,
            rows=[self.rows[row] for row in rows],
            numbers=[self.numbers[row] if self.numbers else row + 1 for row in rows],
            facts=(*self.facts, fact),
        )

    def __str__(self) -> str:
        """Describe in a line how the table was understood."""
        rows = f"{len(self):,} row{'s' * (len(self) != 1)}"
        return f"{self.source}: {rows}{self.understood}"

    @property
    def understood(self) -> str:
        """The columns and how the file was understood, as text that follows its size."""
        columns = ", ".join(self.columns[:8]) + (", ..." if len(self.columns) > 8 else "")
        return f" of {columns}" + "".join(f"; {fact}" for fact in self.facts)

    def values(self, column: str) -> list[Any]:
        """Return the values of one column; None for rows that lack it."""
        return [row.get(column) for row in self.rows]

    def texts(self, column: str) -> list[str]:
        """Return the values of one column, each of them a text, perhaps an empty one.

        Raises:
            DocumentError: A value is no text; the message has its row.
        """
        return [self.text(value, column, index) for index, value in enumerate(self.values(column))]

    def text(self, value: object, column: str, index: int) -> str:
        """Return one value as a text.

        Raises:
            DocumentError: It is no text, or contains half a surrogate pair.
        """
        if isinstance(value, str) and (value.isascii() or _has_utf8(value)):
            return value
        got = "a lone surrogate" if isinstance(value, str) else shown(value)
        raise DocumentError(
            f"{self.where(index)}: column {column!r}: got {got}, expected a text; "
            "repair the row or leave it out"
        )

    def find(self, usual: Sequence[str], *, asked: str | None, option: str | None) -> str:
        """Return the name of the column that is asked for, or the first usual one that exists.

        Args:
            usual: The usual names of the column.
            asked: The name that the user gave, if any.
            option: What the user says to ask for another, such as "--text"; None where there is no
                such option.

        Raises:
            DocumentError: There is none, with the nearest name.
        """
        if asked is not None:
            if asked in self.columns:
                return asked
            raise DocumentError(f"{self.source}: no column {asked!r}; {self._hint([asked])}")
        found = self.first_of(usual)
        if found is None:
            remedy = (
                f"say with {option} which one it is"
                if option
                else f"rename the one that is meant to {usual[0]!r}"
            )
            raise DocumentError(
                f"{self.source}: has none of the columns {', '.join(usual)}; {remedy}; "
                f"{self._hint(usual, has_option=option is not None)}"
            )
        return found

    def first_of(self, usual: Sequence[str]) -> str | None:
        """Return the first of some names that is a column, in any case; None if there is none."""
        names = {name.lower(): name for name in reversed(self.columns)}
        return next((names[name] for name in usual if name in names), None)

    def require_distinct(self, column: str) -> None:
        """Refuse a column of ids in which one occurs twice.

        Raises:
            DocumentError: An id occurs twice; the message has both rows.
        """
        seen: dict[str, int] = {}
        for index, value in enumerate(self.values(column)):
            if (before := seen.setdefault(str(value), index)) != index:
                raise DocumentError(
                    f"{self.where(index)}: has the id {value!r} of row {before + 1}; "
                    f"ids in column {column!r} must differ"
                )

    def _hint(self, wanted: Sequence[str], *, has_option: bool = True) -> str:
        near = list(self._nearest(wanted))
        columns = f"its columns are {', '.join(self._described(name) for name in self.columns)}"
        if len(self.columns) == 1:
            columns = f"its only column is {self._described(self.columns[0])}"
        if near:
            return f"did you mean {near[0]!r}? {columns}"
        if not self.has_header:
            return columns
        if len(self.columns) == 1:
            columns += ", as no comma, semicolon, tab or pipe separates others from it"
        numbers = " and the numbers of the columns" if has_option else ""
        return f"{columns}; if the file has no header, pass --no-header{numbers}"

    def _described(self, name: str) -> str:
        """Return a column's name for messages; a number is followed by its first value."""
        if self.has_header or not (name.isdecimal() and self.rows):
            return shown(name)
        return f"{name} ({shown(self.rows[0].get(name), most=30)})"

    def _nearest(self, wanted: Sequence[str]) -> Iterator[str]:
        for name in wanted:
            yield from difflib.get_close_matches(name, self.columns, n=1)


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# In the order of preference; compared without capitals.
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXTS = ("text", "sentence", "content", "review", "document", "comment", "title", "query", "body")
IDS = ("id", "_id", "idx", "guid")
WORDS = ("tokens", "words", "tokenized_text", "text", "sentence", "data")


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """The columns of the texts, or of the pairs."""

    text: str
    text_pair: str | None = None

    @classmethod
    def find(
        cls, table: Table, text: str | None = None, text_pair: str | None = None
    ) -> "TextColumns":
        """Find the columns that are asked for, or a usual pair, or one usual column.

        Raises:
            DocumentError: There are none.
        """
        if text is None and text_pair is None:
            for first, second in PAIRS:
                if (one := table.first_of([first])) and (other := table.first_of([second])):
                    return cls(text=one, text_pair=other)
        found = table.find(TEXTS, asked=text, option="--text")
        if text_pair is None:
            return cls(text=found)
        return cls(text=found, text_pair=table.find([], asked=text_pair, option="--text-pair"))

    @property
    def names(self) -> Sequence[str]:
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    def read(self, table: Table) -> list[str | tuple[str, str]]:
        """Return the texts or the pairs of all rows.

        Raises:
            DocumentError: A row has no text.
        """
        for name in self.names:
            table.find([], asked=name, option="--text")
        columns = [table.texts(name) for name in self.names]
        if len(columns) == 1:
            return list(columns[0])
        return list(zip(*columns, strict=True))

    def __str__(self) -> str:
        return " and ".join(self.names)


def share_of(text: str | None) -> float | None:
    """Return the share that a text such as "10%" names; None for anything else, such as a path.

    Raises:
        SettingsError: The share is 0, or more than half, or has no %.
    """
    match = _SHARE.fullmatch(text or "")
    if match is None:
        if _NUMBER.fullmatch(text or "") and not Path(text or "").exists():
            raise SettingsError(f"got {text!r}; write a share with %, such as 10%")
        return None
    share = float(match[1]) / 100
    if not 0 < share <= _MOST:
        raise SettingsError(f"got {text!r}; expected a share from above 0% to 50%")
    return share


def held_out(
    groups: Sequence[Hashable],
    share: float,
    *,
    labels: Sequence[Collection[Hashable]] = (),
    stratify: bool = False,
) -> list[bool]:
    """Choose rows, always the same ones of the same rows.

    Args:
        groups: For each row what it belongs to; the rows of a group stay together.
        share: About how many of the groups to hold out.
        labels: The labels of each row. None of them loses its last row to learn from.
        stratify: Whether to hold out the same share of each label.

    Returns:
        For each row whether it is held out.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    strata: dict[Hashable, list[list[int]]] = {}
    for members in rows.values():
        stratum = frozenset(labels[members[0]]) if stratify else None
        strata.setdefault(stratum, []).append(members)
    left = Counter(label for each in labels for label in each)
    chosen = [False] * len(groups)
    for number, members_of in enumerate(strata.values()):
        random.Random(number).shuffle(members_of)
        wanted = round(share * len(members_of))
        for members in members_of:
            taken = Counter(label for row in members for label in (labels[row] if labels else ()))
            if wanted == 0:
                break
            if all(left[label] > count for label, count in taken.items()):
                wanted -= 1
                left -= taken
                for row in members:
                    chosen[row] = True
    return chosen
