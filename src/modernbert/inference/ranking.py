"""The best documents for each of some queries, while the documents go by in blocks."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from modernbert.inference.max_sim import runs, scores_of_block

_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 1_024


def rank_documents(
    queries: Sequence[np.ndarray], blocks: Iterable[Sequence[np.ndarray]], top_k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query the scores and the numbers of the best documents, best first, by MaxSim.

    With one vector a text that is the dot product. Only one block is held at a time.

    queries: (num_vectors, dim) float32 each.
    blocks: documents in their order, in lists, each document as the queries.
    """
    best = {
        (chosen.start, chosen.stop): Best(chosen.stop - chosen.start, top_k)
        for chosen in runs([len(query) for query in queries], _QUERY_VECTORS)
    }
    first_row = 0
    for block in blocks:
        lengths = [len(document) for document in block]
        for rows in runs(lengths, _BLOCK_VECTORS):
            vectors = np.concatenate(block[rows])
            for (start, stop), found in best.items():
                scores = scores_of_block(queries[start:stop], vectors, lengths[rows])
                found.add(np.ascontiguousarray(scores), first_row + rows.start)
        first_row += len(block)
    return [each for found in best.values() for each in found.ordered()]


class Best:
    """The best rows for each query so far, while blocks of rows are scored one after another.

    num: how many are kept.
    """

    def __init__(self, num_queries: int, num: int) -> None:
        self.num = num
        self._scores = torch.empty(num_queries, 0)
        self._rows = torch.empty(num_queries, 0, dtype=torch.int64)

    def add(self, scores: np.ndarray, first_row: int) -> None:
        """Take the scores (num_queries, rows) float32 of rows from `first_row` on."""
        found = torch.arange(first_row, first_row + scores.shape[1]).expand(len(scores), -1)
        joined = torch.cat([self._scores, torch.from_numpy(scores)], 1)
        rows = torch.cat([self._rows, found], 1)
        self._scores, places = joined.topk(min(self.num, joined.shape[1]), dim=1)
        self._rows = rows.gather(1, places)

    @property
    def rows(self) -> np.ndarray:
        """(num_queries, num) int64, in any order."""
        return self._rows.numpy()

    def ordered(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores and rows for each query, best first; among equals the first row."""
        for scores, rows in zip(self._scores.numpy(), self._rows.numpy(), strict=True):
            order = np.lexsort((rows, -scores))
            yield scores[order], rows[order]
