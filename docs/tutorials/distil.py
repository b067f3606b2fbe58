# %% [markdown]
# # Distil a teacher into a retriever
#
# You have many questions and documents, and know the right document for few of them. A model that was trained on more
# labels than you have can score the others: it is the teacher, and a retriever that learns from its scores is the
# student. A retriever has one vector for each text, so it is smaller and faster than its teacher.
#
# The texts are the docstrings of Python's library: the question is the summary of one, the document is the rest.

# %%
import json
import os
import random
import sysconfig
from pathlib import Path

import numpy as np

import modernbert
from modernbert import collect_python_corpus

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

library = Path(sysconfig.get_path("stdlib"), "email" if small else "")
corpus = collect_python_corpus("corpus", library=library)
pairs = []
for path in (*corpus.train, *corpus.held_out):
    for line in path.read_text(encoding="utf-8").splitlines():
        question, _, document = json.loads(line)["text"].partition("\n\n")
        if 20 < len(question) < 120 and "\n" not in question and 100 < len(document) < 500:
            pairs.append({"query": question, "positive": document})
pairs = list({pair["positive"]: pair for pair in pairs}.values())
random.Random(0).shuffle(pairs)
pairs = pairs[: 70 if small else 1500]
num_test, num_labelled = (20, 20) if small else (300, 200)
test, train = pairs[:num_test], pairs[num_test:]
print(f"{len(train)} questions, {num_labelled} of them with a label; {len(test)} to test with")


def finetune(verb: str, output: str, rows: list[dict[str, object]], **training: object) -> Path:
    """Train from the start model; the folder of the result."""
    recipe = {
        "model": start,
        "output": output,
        "data": {"train": rows, "max_seqlen": 192},
        "training": {"epochs": 1 if small else 2, "batch_size": 32, **training},
    }
    return modernbert.finetune(verb, recipe).model


def report(name: str, model: Path) -> None:
    """Rank all documents for the questions of the test; that of question i is document i."""
    embedder = modernbert.load(model)
    scores = embedder.similarity(
        embedder.encode_query([pair["query"] for pair in test]),
        embedder.encode_document([pair["positive"] for pair in pairs]),
    )
    order = np.argsort(-np.asarray(scores), axis=1).tolist()
    first, ten = (np.mean([i in row[:num] for i, row in enumerate(order)]) for num in (1, 10))
    print(f"{name:8} first {first:.1%}, among ten {ten:.1%}")


# %% [markdown]
# ## The student alone
#
# It learns from the questions that have a label.

# %%
alone = finetune("retrieve", "runs/alone", train[:num_labelled])
report("alone", alone)

# %% [markdown]
# ## The teacher
#
# It has a vector for each token, and has seen the labels of all questions: here it stands for a published model.
# With a reranker as the teacher, `modernbert mine pairs.jsonl STUDENT -o scored.jsonl --teacher RERANKER` does this
# and the next step.

# %%
teacher = finetune("late-interaction", "runs/teacher", train)
report("teacher", teacher)

# %% [markdown]
# ## Its scores
#
# For each question: the five documents that the teacher ranks highest, the best of them in the place of the label, and
# four by chance. A row with `scores` has one for each of its documents. No label is used.

# %%
embedder = modernbert.load(teacher)
documents = [pair["positive"] for pair in train]
scores = np.asarray(
    embedder.similarity(
        embedder.encode_query([pair["query"] for pair in train]),
        embedder.encode_document(documents),
    )
)
choose = random.Random(0)
rows = []
for pair, row in zip(train, scores, strict=True):
    best = np.argsort(-row)[:5].tolist()
    chosen = [*best, *choose.sample(sorted(set(range(len(train))) - set(best)), 4)]
    rows.append(
        {
            "query": pair["query"],
            "positive": documents[chosen[0]],
            "negatives": [documents[place] for place in chosen[1:]],
            "scores": [float(row[place]) for place in chosen],
        }
    )

# %% [markdown]
# ## The student with a teacher
#
# The loss `kl` is how far its probabilities of the documents are from the teacher's; `margin` compares differences of
# scores.

# %%
taught = finetune("retrieve", "runs/taught", rows, loss="kl")
report("alone", alone)
report("taught", taught)
report("teacher", teacher)
