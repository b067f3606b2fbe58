"""How much of a text, or of two, fits into a sequence."""

from modernbert.errors import InputError


def room_for_text(max_seqlen: int | None, num_special: int) -> int | None:
    """How many tokens of text fit beside the special ones; None when there is no limit."""
    if max_seqlen is None:
        return None
    if max_seqlen <= num_special:
        raise InputError(
            f"max_seqlen: got {max_seqlen}, expected at least {num_special + 1}: "
            f"{num_special} special tokens and one of text"
        )
    return max_seqlen - num_special


def cut_to(
    first: list[int], second: list[int] | None, room: int | None
) -> tuple[list[int], list[int] | None]:
    """Cut one text, or of two the longer first, to `room` tokens together.

    >>> cut_to([1, 2, 3, 4], [5, 6], 5)
    ([1, 2, 3], [5, 6])
    """
    if room is None or second is None:
        return first[:room], second
    shorter = min(len(first), len(second), room // 2)
    if len(first) <= len(second):
        return first[:shorter], second[: room - shorter]
    return first[: room - shorter], second[:shorter]
