# %% [markdown]
# # Distil a reranker into a retriever
#
# A reranker is accurate and reads every document anew for each question; a retriever reads each document once. You
# train a reranker, let it score candidates, and train a retriever on these scores, beside one that knows only which
# document is right.
#
# A student learns no more than its teacher knows, and a teacher of this size, trained on 900 pairs, knows little: take
# the figures as a check of the steps. For a model that you want to use, name a published reranker as the teacher.

# %%
import json
import os
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import modernbert
from modernbert.data.python_corpus import collect

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

library = Path(sysconfig.get_path("stdlib"), "email" if small else "")
corpus = collect("corpus", library=library)
pairs = []
for path in (*corpus.train, *corpus.held_out):
    for line in path.read_text(encoding="utf-8").splitlines():
        question, _, document = json.loads(line)["text"].partition("\n\n")
        if 20 < len(question) < 120 and "\n" not in question and 100 < len(document) < 500:
            pairs.append({"query": question, "positive": document})
pairs = list({pair["positive"]: pair for pair in pairs}.values())
random.Random(1).shuffle(pairs)
pairs = pairs[: 70 if small else 1200]
num_test = 20 if small else 300
test, train = pairs[:num_test], pairs[num_test:]
Path("train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in train))


def finetune(verb: str, output: str, rows: object, **training: object) -> object:
    """Train from the start model; the scores are those of the held-out questions."""
    recipe = {
        "model": start,
        "output": output,
        "data": {"train": rows, "test": test, "max_seqlen": 256},
        "training": {"epochs": 1 if small else 2, **training},
    }
    return modernbert.finetune(verb, recipe).best.test


# %% [markdown]
# ## The student alone, and its mistakes
#
# `mine` finds documents that the retriever takes for answers. On the command line it is one line; here it is called
# in the same way.

# %%
alone = finetune("retrieve", "runs/alone", "train.jsonl", batch_size=16)


def mine(output: str, *options: str) -> None:
    """`modernbert mine`, as in a shell."""
    model = ("runs/alone/model", "-o", output, "--negatives", "3")
    command = [sys.executable, "-m", "modernbert", "mine", "train.jsonl", *model, *options]
    subprocess.run(command, check=True, capture_output=True)


mine("mined.jsonl")

# %% [markdown]
# ## The teacher

# %%
finetune("rerank", "runs/teacher", "mined.jsonl", batch_size=8)

# %% [markdown]
# ## The student with a teacher
#
# With `--teacher`, each row also has the scores of its documents. A retriever that is trained on such rows learns by
# how much one document is better than another: its loss is `margin` by default, or `kl`.

# %%
mine("scored.jsonl", "--teacher", "runs/teacher/model")
scored = [json.loads(line) for line in Path("scored.jsonl").read_text().splitlines()]
best = [row["scores"][0] == max(row["scores"]) for row in scored]
print(
    f"the teacher puts the answer before the negatives for {sum(best) / len(best):.1%} of its rows"
)
taught = finetune("retrieve", "runs/taught", "scored.jsonl", batch_size=16, loss="kl")

# %%
for name, scores in (("alone", alone), ("taught", taught)):
    print(f"{name:8}", {key: round(value, 3) for key, value in scores.items()})
