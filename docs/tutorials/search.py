# %% [markdown]
# # Search over your documents
#
# You train two retrievers on pairs of a question and its answer, index documents, rerank what their words find, and
# measure how often the right one is among the first. The documents are docstrings of Python; their first sentence
# plays the question, the rest the document that answers it. With a network, start from a published embedding model
# instead.

# %%
import json
import os
import random
import sysconfig
from pathlib import Path

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
pairs = pairs[: 90 if small else 1500]
num_test = 20 if small else 300
test, train = pairs[:num_test], pairs[num_test:]
print(len(train), "pairs to train on,", len(test), "held out; for example:", test[0]["query"])

# %% [markdown]
# ## A retriever
#
# Each question should be nearer to its own document than to the others of the step. On the command line:
# `modernbert finetune retrieve --model MODEL --train pairs.jsonl`.

# %%
import modernbert

modernbert.finetune(
    "retrieve",
    {
        "model": start,
        "output": "runs/retriever",
        "data": {"train": train, "max_seqlen": 192},
        "training": {"epochs": 1 if small else 2, "batch_size": 32},
    },
)

# %% [markdown]
# ## An index
#
# All documents are embedded and written into a folder that is mapped into memory when it is searched. With their
# texts and `bm25`, they are found by their words too (`pip install 'modernbert[search]'`).

# %%
embedder = modernbert.Embedder.from_pretrained("runs/retriever/model")
documents = [pair["positive"] for pair in pairs]
index = modernbert.Index.build(
    "documents.index",
    embedder.stream(documents),
    ids=[str(i) for i in range(len(documents))],
    texts=documents,
    bm25="english",
)
questions = [pair["query"] for pair in test]
vectors = embedder.encode_query(questions)


def hits_at(num: int, rankings: list[list[int]]) -> float:
    """The share of questions whose own document is among the first; that of question i is i."""
    return sum(i in ranking[:num] for i, ranking in enumerate(rankings)) / len(rankings)


searches = {
    "vectors": index.search(vectors, top_k=20),
    "words": index.search(texts=questions, top_k=20),
    "both": index.search(vectors, texts=questions, top_k=20),
}
places = {name: [[int(hit.id) for hit in hits] for hits in each] for name, each in searches.items()}
for name, rankings in places.items():
    print(f"{name:8} first {hits_at(1, rankings):.1%}, among ten {hits_at(10, rankings):.1%}")

# %% [markdown]
# One vector a text, learnt from so few pairs by a model that has read novels, cannot tell one method of Python from
# another, and mixing it with the words makes them worse. This is why you measure before you mix.
#
# ## A vector for each token
#
# With late interaction each token of the question looks for its best partner in the document, so that rare names
# count, and little has to be learnt. On the command line: `modernbert finetune late-interaction`.

# %%
modernbert.finetune(
    "late-interaction",
    {
        "model": start,
        "output": "runs/late",
        "data": {"train": train, "max_seqlen": 192},
        "training": {"epochs": 1 if small else 2, "batch_size": 32},
    },
)

# %% [markdown]
# It reranks the twenty documents that the words find, by its own score and the place that the words gave them. A
# reranker that reads both texts together (`modernbert finetune rerank`) is the usual choice here, but it needs tens of
# thousands of pairs: one that was trained on these, with negatives that the retriever chose, put the right document
# first for 1.3% of the questions. Take a published one, such as
# `modernbert.Reranker.from_pretrained("Alibaba-NLP/gte-reranker-modernbert-base")`.

# %%
late = modernbert.MultiVectorEmbedder.from_pretrained("runs/late/model")
scores = late.similarity(late.encode_query(questions), late.encode_document(documents))
reranked = []
for question, candidates in enumerate(places["words"]):
    by_score = sorted(candidates, key=lambda i: -scores[question][i])
    fused = {i: 1 / (1 + candidates.index(i)) + 1 / (1 + by_score.index(i)) for i in candidates}
    reranked.append(sorted(candidates, key=lambda i: -fused[i]))
alone = [[int(i) for i in (-row).argsort()[:20]] for row in scores]
for name, rankings in {"tokens": alone, "words, then tokens": reranked}.items():
    print(f"{name:18} first {hits_at(1, rankings):.1%}, among ten {hits_at(10, rankings):.1%}")

# %%
print(
    f"the right document is among the first ten for {hits_at(10, places['words']):.1%} of "
    f"{len(questions)} questions by words alone, for {hits_at(10, reranked):.1%} after reranking"
)
