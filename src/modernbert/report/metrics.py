"""Reading `metrics.jsonl`, the log of a run: one JSON object a line, of several kinds."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from modernbert.errors import RunError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One figure over the course of a run.

    tokens: how many the run had seen, ascending.
    values: the figure at each.
    """

    tokens: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def smoothed(self, half_width: int) -> "Curve":
        """Means of the points around each, as many before as after, so that nothing lags.

        half_width: points on either side; fewer at the start, and after it at the end.

        >>> Curve((1, 2, 3, 4), (9.0, 3.0, 0.0, 3.0)).smoothed(1).values
        (9.0, 4.0, 2.0, 1.5)
        """
        sums = [0.0, *accumulate(self.values)]
        means = []
        for index in range(len(self.values)):
            reach = min(half_width, index)
            first, end = index - reach, min(len(self.values), index + reach + 1)
            means.append((sums[end] - sums[first]) / (end - first))
        return Curve(self.tokens, tuple(means))


def read_rows(path: Path | str) -> list[Row]:
    """All rows of a log that still count, in their order.

    A process that was killed may leave a torn line, which is left out; and a run that was taken up
    again does some steps once more, of which the later ones count.

    Raises:
        RunError: there is no such file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: no readable log of a run: {error.strerror}") from None
    rows: list[Row] = []
    for line in content.splitlines():
        row = _parse(line)
        if row is None:
            continue
        if row["kind"] in ("step", "resume"):
            _forget_repeated(rows, row)
        rows.append(row)
    return rows


def read_curve(rows: Iterable[Row], kind: str, figure: str) -> Curve:
    """One figure of the rows of one kind; rows that lack it are passed over.

    >>> rows = [{"kind": "step", "step": 1, "tokens": 512, "loss": 9.5}, {"kind": "checkpoint"}]
    >>> read_curve(rows, "step", "loss")
    Curve(tokens=(512,), values=(9.5,))
    """
    points = [
        (row["tokens"], row[figure])
        for row in rows
        if row["kind"] == kind and "tokens" in row and row.get(figure) is not None
    ]
    return Curve(tuple(int(t) for t, _ in points), tuple(float(value) for _, value in points))


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("kind"), str) else None


def _forget_repeated(rows: list[Row], row: Row) -> None:
    """Drop what comes after the place where `row` goes on; a resume keeps its own step."""
    first = row.get("step", 0) + (row["kind"] == "resume")
    while rows and rows[-1].get("step", -1) >= first:
        rows.pop()
