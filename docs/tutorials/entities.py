# %% [markdown]
# # Entities from a CoNLL file
#
# You train a tagger from a file of one word and one tag per line, and mark entities in running text. The sentences
# are those of Python's docstrings, with the names of exceptions and of modules as entities: tags that a program can
# write, so that the file is made here. Yours comes from an annotation tool.

# %%
import builtins
import json
import os
import re
import sys
import sysconfig
from pathlib import Path

from modernbert import collect_python_corpus

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

errors = {name for name in dir(builtins) if name.endswith(("Error", "Exception", "Warning"))}
modules = {name for name in sys.stdlib_module_names if len(name) > 4 and not name.startswith("_")}
# Words of English as well as modules: only where the text says that a module is meant.
modules -= {"array", "calendar", "codecs", "email", "types", "string", "queue", "select", "signal"}


def tagged(sentence: str) -> list[tuple[str, str]]:
    """Each word with its tag."""
    words = re.findall(r"\w+|[^\w\s]", sentence)
    return [(w, "B-ERROR" if w in errors else "B-MODULE" if w in modules else "O") for w in words]


def sentences(path: Path) -> list[list[tuple[str, str]]]:
    """Sentences of prose with at least one entity."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"]
        if not text.lstrip().startswith(("#", "import", "from", '"""')):
            for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text):
                if 20 < len(sentence) < 300 and any(tag != "O" for _, tag in tagged(sentence)):
                    found[sentence] = tagged(sentence)
    return list(found.values())


library = Path(sysconfig.get_path("stdlib"), "email" if small else "")
corpus = collect_python_corpus("corpus", library=library)
train, test = sentences(corpus.train[0]), sentences(corpus.held_out[0])
train = train[: 60 if small else 2000]
test = test[: 20 if small else 300]
print(len(train), "sentences to train on,", len(test), "held out")

# %% [markdown]
# ## The file
#
# An empty line ends a sentence; the tag is the last column.

# %%
for name, part in (("train.conll", train), ("test.conll", test)):
    lines = ["\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in part]
    Path(name).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
print(Path("train.conll").read_text(encoding="utf-8")[:150])

# %% [markdown]
# ## Training
#
# On the command line: `modernbert finetune tag --model MODEL --train train.conll --test test.conll`. With a label `O`,
# whole entities are scored.

# %%
import modernbert

results = modernbert.finetune(
    "tag",
    {
        "model": start,
        "output": "runs/entities",
        "data": {"train": "train.conll", "test": "test.conll"},
        "training": {"epochs": 1 if small else 3},
    },
)

# %% [markdown]
# ## Running text
#
# The tagger splits a text into words as its training data were split, and returns places in the text. Words that it
# has not been trained on are marked by the words around them:

# %%
tagger = modernbert.Tagger.from_pretrained("runs/entities/model")
text = "Raises ValueError if the module shutil is missing, and FrobnicationError if it is broken."
for entity in tagger(text):
    print(f"{text[entity.start : entity.end]:20} {entity.label} {entity.score:.2f}")

# %%
print(f"F1 of entities on held-out sentences: {results.best.test['f1']:.3f}")
