"""Which rows are held out of those to learn from, where a share of them is asked for."""

import random
import re
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path

from modernbert.errors import SettingsError

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
_MOST = 0.5


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
