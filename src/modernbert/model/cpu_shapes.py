"""Few numbers of rows for the products of a CPU.

torch prepares its products there anew for each number of rows and keeps every preparation. Rounded
up, the numbers are few. Measured with the tiny size and about 614 masked rows a step: 44 MB more
after 150 further steps in place of 550 MB, and as fast.
"""

from modernbert.batch import PackedBatch

_MULTIPLE = 64


def missing_rows(num_rows: int) -> int:
    """How many rows there should be besides.

    >>> missing_rows(100), missing_rows(128)
    (28, 0)
    """
    return -num_rows % _MULTIPLE


def filled(batch: PackedBatch) -> PackedBatch:
    """The batch, on a CPU filled up behind its tokens with sequences of which nothing is asked."""
    missing = missing_rows(batch.total_tokens)
    if not missing or batch.token_ids.device.type != "cpu":
        return batch
    return batch.filled_up(
        batch.total_tokens + missing,
        max_seqlen=max(batch.max_seqlen, missing),
        token_id=int(batch.token_ids[0]),
    )
