# %% [markdown]
# # A model for your field
#
# You continue the pretraining of a model on texts of your own field, with words of the field in its vocabulary. Here
# the field is Python's documentation, and the model is a small one of the repository that has read novels. With a
# network, start from `answerdotai/ModernBERT-base`.

# %%
import json
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path

import modernbert
from modernbert import collect_python_corpus

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

library = Path(sysconfig.get_path("stdlib"), "email" if small else "")
corpus = collect_python_corpus("corpus", library=library)
(train_file,), held_out_files = corpus.train, corpus.held_out
if small:
    lines = train_file.read_text(encoding="utf-8").splitlines(keepends=True)
    train_file = Path("few.jsonl")
    train_file.write_text("".join(lines[:200]), encoding="utf-8")

# %% [markdown]
# ## Which words it lacks
#
# A word that is frequent in the field and cut into many tokens is worth one of its own. The vocabulary of a model
# has 83 unused slots for that, so its size does not change.

# %%
tokenizer = modernbert.Tokenizer.from_pretrained(start)
counts: Counter[str] = Counter()
for line in train_file.read_text(encoding="utf-8").splitlines():
    counts.update(re.findall(r"[^\W\d]\w{5,}", json.loads(line)["text"]))
saved = {
    word: count * (len(tokenizer.encode(" " + word)) - 4)  # [CLS], the blank, the word, [SEP]
    for word, count in counts.most_common(3000)
    if tokenizer.token_to_id(word) is None
}
words = sorted(saved, key=lambda word: -saved[word])[:80]
print(words[:10])

# %%
from modernbert import extend_tokenizer

extended = extend_tokenizer(tokenizer, words, "tokenizer")
held_out = [
    json.loads(line)["text"]
    for file in held_out_files
    for line in file.read_text(encoding="utf-8").splitlines()[:300]
]
num_words = sum(len(re.findall(r"\w+", text)) for text in held_out)
for name, each in (("before", tokenizer), ("now", extended)):
    num_tokens = sum(len(ids) for ids in each.encode_batch(held_out))
    sample = each.encode("return isinstance(error, AttributeError)", special_tokens=False)
    print(
        f"{name}: {num_tokens / num_words:.2f} tokens a word;", [each.decode([i]) for i in sample]
    )

# %% [markdown]
# A new token is found wherever its letters stand, so short words are left out: `None` would split `NoneType`.
#
# ## Continue
#
# `start` names the model to go on with; its sizes are its own. The rate rises from zero again, as the averages of
# the optimizer are empty, and ends at almost nothing. For a larger budget, mix in some general text as a second
# source, so that the model does not forget what it knows: the recipe `continue` shows how.

# %%
modernbert.prepare(train_file, "shards", "tokenizer", held_out=0.0)
modernbert.prepare(held_out_files, "held-out", "tokenizer", held_out=0.0)
total_tokens = 4_000 if small else 300_000
recipe = {
    "output": "runs/domain",
    "tokenizer": "tokenizer",
    "sources": [{"shards": "shards"}],
    "model": {"start": start},
    "packing": {"max_seqlen": 256, "bin_tokens": 1024},
    "batch": {"bins_per_step": 1 if small else 2},
    "training": {
        "total_tokens": total_tokens,
        "evaluate_every_steps": 2 if small else 15,
        "schedule": {
            "peak_learning_rate": 1e-3,
            "warmup_tokens": total_tokens // 10,
            "decay": "1-sqrt",
            "decay_tokens": total_tokens // 2,
        },
    },
    "evaluation": {"shards": "held-out", "max_tokens": 2_000 if small else 40_000},
}
losses: dict[int, float] = {}


def keep(record: dict) -> None:
    """Remember the held-out loss of each evaluation."""
    if "held_out_loss" in record:
        losses[record["step"]] = record["held_out_loss"]


result = modernbert.pretrain(recipe, observers=[keep])
print(f"held-out loss at the end: {result.evaluation['held_out_loss']:.2f}")

# %% [markdown]
# The held-out loss on the field, from evaluation to evaluation:

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.add_subplot(xlabel="step", ylabel="held-out loss")
axes.plot(list(losses), list(losses.values()), marker="o", color="#c8502d")
figure.savefig("domain.svg")
