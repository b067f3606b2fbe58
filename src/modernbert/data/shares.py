"""Shares: which files of many each of several independent tasks reads, the same at every call."""

from collections.abc import Sequence

from modernbert.data.corpus_files import CorpusFile


def files_of_share(
    files: Sequence[CorpusFile], task: int, num_tasks: int
) -> Sequence[CorpusFile] | None:
    """The files of one task: some next to one another, so that the shares in turn are all files.

    Args:
        files: All files, in their order.
        task: The number of the share, from 0.
        num_tasks: The number of shares.

    Returns:
        The files; None where whole files would leave a task without any, or make a share more than
        twice as large as an even one.
    """
    owners, loads, done = [], [0] * num_tasks, 0
    sizes = [max(1, file.expected_text_bytes) for file in files]
    total = sum(sizes)
    for size in sizes:
        owner = (2 * done + size) * num_tasks // (2 * total)  # of the middle of the file
        owners.append(owner)
        loads[owner] += size
        done += size
    if 0 in loads or max(loads) * num_tasks > 2 * total:
        return None
    return [file for file, owner in zip(files, owners, strict=True) if owner == task]


def rows_of_share(num_rows: int, task: int, num_tasks: int) -> tuple[int, int]:
    """Where the rows of one task begin and end, among all rows.

    >>> [rows_of_share(10, task, 3) for task in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    return num_rows * task // num_tasks, num_rows * (task + 1) // num_tasks
