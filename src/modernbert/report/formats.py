"""Numbers on axes and in tables, formatted for people."""

import math
import re
from collections.abc import Callable, Sequence

NumberFormat = Callable[[float], str]

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def compact(value: float) -> str:
    """Format a number with about three digits and no trailing zeros.

    >>> compact(0), compact(4.5e-4), compact(0.25), compact(1234), compact(1.5e9), compact(1e-6)
    ('0', '4.5e-4', '0.25', '1.23k', '1.5B', '1e-6')
    """
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.3g}")
    for size, unit in _UNITS:
        if abs(rounded) >= size:
            return f"{rounded / size:.3g}{unit}"
    if 0 < abs(rounded) < 1e-2:
        digits, _, power = f"{rounded:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{rounded:.3g}"


def percent(value: float) -> str:
    """Format a fraction as a percentage of three digits at most.

    >>> percent(0.25), percent(0.99459), percent(1), percent(0.00297)
    ('25%', '99.5%', '100%', '0.297%')
    """
    return f"{100 * value:.3g}%"


def num_bytes(value: float) -> str:
    """Format a number of bytes in powers of 1000.

    >>> num_bytes(0), num_bytes(1500), num_bytes(5e9)
    ('0', '1.5 kB', '5 GB')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Format seconds in the two largest units.

    >>> duration(0.25), duration(59), duration(3725), duration(200_000)
    ('0.25 s', '59 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers from `low` to `high`, in steps of 1, 2 or 5.

    >>> ticks(0.3, 2.9, 5)
    [0.5, 1.0, 1.5, 2.0, 2.5]
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return []
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((s for s in (1, 2, 5, 10)), key=lambda s: abs(math.log(s * power / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step))) + 1
    return [round(number * step, digits) for number in range(first, last + 1)]


def tick_labels(places: Sequence[float], format: NumberFormat) -> list[str]:
    """Format the ticks of an axis, those of one unit with the same number of decimals.

    >>> tick_labels([0, 0.38, 0.4], compact), tick_labels([5e5, 1e6, 1.5e6], compact)
    (['0', '0.38', '0.40'], ['500k', '1.0M', '1.5M'])
    >>> tick_labels([5e-5, 1e-4, 1.5e-4], compact)
    ['5.0e-5', '1.0e-4', '1.5e-4']
    """
    parts = [re.fullmatch(r"(-?\d+)\.?(\d*)((e?).*)", format(place)) for place in places]
    decimals: dict[str, int] = {}
    for part in parts:
        if part and part[0] != "0":
            unit = part[4] or part[3]
            decimals[unit] = max(decimals.get(unit, 0), len(part[2]))
    return [
        f"{part[1]}.{part[2]:0<{wanted}}{part[3]}"
        if part and part[0] != "0" and (wanted := decimals[part[4] or part[3]])
        else format(place)
        for place, part in zip(places, parts, strict=True)
    ]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten; 2 and 5 are added if there are few, and some dropped if there are many.

    >>> log_ticks(0.3, 30), log_ticks(0.9, 1100), log_ticks(0.3, 0.6)
    ([0.5, 1.0, 2.0, 5.0, 10.0, 20.0], [1.0, 10.0, 100.0, 1000.0], [0.3, 0.4, 0.5, 0.6])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high) - math.log10(low)
    if decades < 1:
        return [value for value in ticks(low, high, 4) if value > 0]
    factors = (1, 2, 5) if decades <= 2.2 else (1,)
    powers = range(first, last + 1, max(1, math.ceil((last - first) / 7)))
    found = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in found if low <= value <= high]
