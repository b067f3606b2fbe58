# %% [markdown]
# # Eight labels from 64 examples and from 2,000
#
# You train a classifier of eight labels twice: from eight examples of each label, and from 250 of each. The texts are
# functions of Python's standard library, and the label is the package that a function is from. The small model of
# the repository has read novels and no code; with a network, start from `answerdotai/ModernBERT-base`.

# %%
import ast
import os
import random
import sysconfig
from pathlib import Path

small = os.environ.get("MODERNBERT_TUTORIAL") == "small"  # as the tests run it, in seconds
start = os.environ.get("MODERNBERT_START", "benchmarks/finetune/start")

labels = (
    "asyncio",
    "email",
    "idlelib",
    "importlib",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)
labels = labels[:3] if small else labels
library = Path(sysconfig.get_path("stdlib"))
rows = []
for label in labels:
    texts = set()
    for path in sorted((library / label).rglob("*.py")):
        if "test" not in path.name and "_test" not in str(path):
            source = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    texts.add(ast.get_source_segment(source, node))
    rows.append([{"text": text, "label": label} for text in sorted(texts)])
    random.Random(0).shuffle(rows[-1])
print({label: len(each) for label, each in zip(labels, rows, strict=True)})

# %% [markdown]
# The first 50 functions of each label are held out. Rows may be lists of dictionaries, data frames or files.

# %%
num_test, num_many = (5, 10) if small else (50, 250)
test = [row for each in rows for row in each[:num_test]]
few = [row for each in rows for row in each[num_test : num_test + 8]]
many = [row for each in rows for row in each[num_test : num_test + num_many]]
print(len(few), "and", len(many), "examples;", len(test), "held out")

# %% [markdown]
# ## From 64 examples
#
# `few_shot` first brings texts of one label together, then fits a logistic regression to their vectors. On the
# command line: `modernbert finetune classify --model MODEL --train few.csv --few-shot`.

# %%
import modernbert

from_few = modernbert.finetune(
    "classify",
    {
        "model": start,
        "output": "runs/few",
        "data": {"train": few, "test": test, "max_seqlen": 128},
        "training": {"few_shot": True},
    },
)
print(f"64 examples: {from_few.best.test['accuracy']:.1%}")
print("\n".join(from_few.comparisons))

# %% [markdown]
# The last line is a plain model, TF-IDF of words and logistic regression, on the same rows. Where it is better, the
# report says so: it is a sign that single words tell the labels apart, or that the model has not read such texts.
#
# ## From many examples

# %%
from_many = modernbert.finetune(
    "classify",
    {
        "model": start,
        "output": "runs/many",
        "data": {"train": many, "test": test, "max_seqlen": 128},
        "training": {"epochs": 1 if small else 4, "batch_size": 32},
    },
)
print(f"{len(many):,} examples: {from_many.best.test['accuracy']:.1%}")

# %% [markdown]
# `runs/many/report.html` shows the curves, the scores of each label and the worst mistakes. The model is a folder:

# %%
classifier = modernbert.Classifier.from_pretrained("runs/many/model")
scores = classifier("def test_equal(self):\n    self.assertEqual(self.result.failures, [])")
print([(each.label, round(each.score, 2)) for each in scores[:3]])

# %%
print(
    f"accuracy on {len(test)} held-out functions: {from_few.best.test['accuracy']:.1%} from 64 "
    f"examples, {from_many.best.test['accuracy']:.1%} from {len(many):,}"
)
