"""Numbers as a person reads them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short_count(number: float) -> str:
    """A large number in three digits.

    >>> short_count(949), short_count(3_412_000), short_count(149_655_232), short_count(1.719e12)
    ('949', '3.41M', '150M', '1.72T')
    """
    rounded = float(f"{number:.3g}")  # first, so that 999,999 is 1.00M and not 1000k
    for size, unit in _UNITS:
        if rounded >= size:
            scaled = rounded / size
            digits = max(0, 2 - int(math.log10(scaled)))
            return f"{scaled:.{digits}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours and days when there are any.

    >>> duration(65), duration(3725), duration(200_000)
    ('1:05', '1:02:05', '2d 7:33:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if not (days or hours):
        return f"{minutes}:{rest:02d}"
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "document"), counted(1200, "document")
    ('1 document', '1,200 documents')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def lines(description: Mapping[str, Any], *, indent: str = "") -> Iterator[str]:
    r"""Format a description as aligned lines, with nested values indented below their names.

    >>> print(*lines({"num_layers": 22, "window": {"layers": 14}}), sep="\n")
    num layers  22
    window
      layers  14
    """
    flat = [name for name, value in description.items() if not _is_nested(value)]
    width = max((len(name) for name in flat), default=0)
    for name, value in description.items():
        label = name.replace("_", " ")
        if not _is_nested(value):
            yield f"{indent}{label:<{width}}  {_value(value)}"
            continue
        yield f"{indent}{label}"
        if isinstance(value, Mapping):
            yield from lines(value, indent=indent + "  ")
        else:
            yield from (f"{indent}  {_record(record)}" for record in value)


def _is_nested(value: Any) -> bool:
    """Whether it takes lines of its own: a description, or a list of records."""
    records = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    return records or (isinstance(value, Mapping) and bool(value))


def _record(record: Mapping[str, Any]) -> str:
    """One line: the first value names the record."""
    first, *rest = record.items()
    return "  ".join([_value(first[1]), *(f"{name} {_value(value)}" for name, value in rest)])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, Mapping):
        return "none"
    return str(value)
