"""nDCG@10 by ir-measures, the one judge of everybody's rankings."""

from collections.abc import Sequence

import ir_measures
import numpy as np

from benchmarks.finetune.workloads import Row


def ndcg_at_10(
    scores: np.ndarray, queries: Sequence[str], documents: Sequence[str], qrels: Sequence[Row]
) -> float:
    """scores: (num_queries, num_documents), higher is better."""
    run = []
    for query, row in zip(queries, scores, strict=True):
        for index in np.argsort(-row, kind="stable")[:10]:
            run.append(ir_measures.ScoredDoc(query, documents[index], float(row[index])))
    wanted = [
        ir_measures.Qrel(str(row["query-id"]), str(row["corpus-id"]), int(row["score"]))
        for row in qrels
    ]
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], wanted, run)[measure])
