"""The best documents for each of some queries, while the documents go by in blocks."""

from collections.abc import Iterable, Sequence

import numpy as np

from modernbert.inference.max_sim import runs, scores_of_block
from modernbert.inference.search import Best

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
