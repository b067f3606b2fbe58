# %% [markdown]
# # From your own corpus to a model
#
# You train a tokenizer, write token shards and pretrain a small model, and see it fill in masked tokens. The corpus
# is what comes with every Python installation: code and documentation. Put a folder of your own texts in its place
# and nothing else changes.

# %%
import os
import sysconfig
from pathlib import Path

from modernbert import collect_python_corpus

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds

library = Path(sysconfig.get_path("stdlib"), "email" if small else "")
corpus = collect_python_corpus("corpus", library=library)
print(f"{sum(path.stat().st_size for path in corpus.train) / 1e6:.1f} MB to train on")

# %% [markdown]
# ## A tokenizer
#
# On the command line this is `modernbert tokenizer train corpus tokenizer --vocab-size 8192`.

# %%
import json

from modernbert import train_tokenizer

(train_file,) = corpus.train
texts = [json.loads(line)["text"] for line in train_file.read_text(encoding="utf-8").splitlines()]
rows = {"text": texts[:300] if small else texts}
tokenizer = train_tokenizer(rows, "tokenizer", vocab_size=1024 if small else 8192)
print(len(tokenizer.encode("import collections")), "tokens of", tokenizer.vocab_size)

# %% [markdown]
# ## Shards
#
# Token shards hold the ids of all documents, so that training never waits for text. `modernbert prepare` does the
# same; it can be stopped and continued, and says what it could not read.

# %%
import modernbert

if small:
    Path("few.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:400]))
    train_file = "few.jsonl"
modernbert.prepare(train_file, "shards", "tokenizer", held_out=0.0)
made = modernbert.prepare(corpus.held_out, "held-out", "tokenizer", held_out=0.0)
print(f"{made.train.num_tokens:,} tokens held out")

# %% [markdown]
# ## Pretraining
#
# A recipe says everything that decides the weights. It is a TOML file on the command line
# (`modernbert pretrain recipe.toml`) and may be a mapping in Python. A run that is stopped is continued by the same
# call and ends with the same weights.

# %%
total_tokens = 4_000 if small else 400_000
recipe = {
    "output": "runs/mine",
    "tokenizer": "tokenizer",
    "sources": [{"shards": "shards"}],
    "model": {"preset": "tiny"},
    "packing": {"max_seqlen": 256, "bin_tokens": 1024},
    "batch": {"bins_per_step": 1},
    "training": {
        "total_tokens": total_tokens,
        "evaluate_every_steps": 2 if small else 50,
        "schedule": {
            "peak_learning_rate": 1e-3,
            "warmup_tokens": total_tokens // 10,
            "decay": "1-sqrt",
            "decay_tokens": total_tokens // 2,
        },
    },
    "evaluation": {"shards": "held-out", "max_tokens": 2_000 if small else 40_000},
}
result = modernbert.pretrain(recipe)

# %% [markdown]
# `runs/mine/report.html` is the page of the run, and `runs/mine/model` the model, which transformers loads too. These
# are tokens that it has not seen:

# %%
fill_mask = modernbert.FillMask.from_pretrained("runs/mine/model")
for text in ("import [MASK]", "for i in [MASK](10):", "if self.[MASK] is None:"):
    (predictions,) = fill_mask(text)
    print(f"{text:26} {[each.token for each in predictions[:3]]}")

# %%
loss, accuracy = result.evaluation["held_out_loss"], result.evaluation["held_out_accuracy"]
print(f"after {total_tokens:,} tokens: held-out loss {loss:.2f}, accuracy {accuracy:.1%}")
