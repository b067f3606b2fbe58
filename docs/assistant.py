"""llms.txt: what a coding assistant needs to use this package right the first time.

The verbs with their flags, the kinds of models and the errors come from the code; what to choose for
which job is written here. `python -m docs.tables` writes the file.
"""

import inspect
from collections import Counter
from collections.abc import Iterator

from docs.commands import Verb, verbs
from modernbert import errors
from modernbert.kinds import MODELS

ABOUT = """\
# modernbert

> Python package and command line that pretrain, fine-tune, evaluate, export and serve ModernBERT encoders. Sequences
> are packed, never padded. Every verb below exists with exactly these flags; no other flags exist.

- Python 3.11 or later. Extras: `modernbert[train]` to train, `[serve]` for the server, `[export]` for ONNX.
- A model is a folder, or an id on the hub such as `answerdotai/ModernBERT-base`, optionally with `@REVISION`. The same
  folders load in transformers and sentence-transformers. Pickled weights are refused.
- Rows are read from CSV, TSV, JSON Lines, JSON, Parquet, Arrow, CoNLL, SQuAD and BEIR files, saved datasets and
  datasets on the hub. Columns are found by their usual names (text, label; tokens, tags; question, context,
  answers; query, positive, negative, scores); name others with `--text`, `--label` and so on.
- Data goes to stdout, progress and messages to stderr. `--json` gives results as JSON.
- A verb that was stopped or killed is continued by the same command; it ends with the same result. Do not delete its
  output to continue. To begin anew, choose another output.
- Do not pad, and do not pass attention masks: give texts, or a `PackedBatch` of token ids.
- Settings of a pretraining stand in a TOML recipe; an unknown key is an error that names the nearest one.
"""

JOBS = """\
## Which verb for which job

```bash
modernbert demo demo                                             # see it work: a tiny model in four minutes
modernbert tokenizer train corpus tokenizer --vocab-size 32768   # a tokenizer for your own texts
modernbert tokenizer extend answerdotai/ModernBERT-base tokenizer --token "<word>"  # words of a field
modernbert prepare corpus shards --tokenizer tokenizer           # text to token shards, before pretraining
modernbert recipe list                                           # recipes that come with the package
modernbert plan base --gpus 8 --kind h100                        # hours, memory and cost in advance
modernbert pretrain recipe.toml                                  # pretrain, or continue a pretraining
torchrun --nproc-per-node 8 -m modernbert pretrain recipe.toml   # the same on eight GPUs
modernbert finetune classify --model MODEL --train train.csv --dev 10%   # labels of texts or pairs
modernbert finetune classify --model MODEL --train few.csv --few-shot    # 8 to 64 rows per label
modernbert finetune regress --model MODEL --train train.csv              # a number for each text or pair
modernbert finetune tag --model MODEL --train train.conll                # entities
modernbert finetune answer --model MODEL --train train.json              # answers in texts (SQuAD)
modernbert finetune retrieve --model MODEL --train pairs.jsonl           # one vector per text
modernbert finetune late-interaction --model MODEL --train pairs.jsonl   # ColBERT
modernbert finetune sparse --model MODEL --train pairs.jsonl             # SPLADE
modernbert finetune rerank --model MODEL --train pairs.jsonl             # a cross-encoder
modernbert mine pairs.jsonl runs/retriever/model -o mined.jsonl          # hard negatives
modernbert mine pairs.jsonl runs/retriever/model -o scored.jsonl --teacher runs/reranker/model  # distillation
modernbert evaluate MODEL glue --data folder                     # score a model on a suite of tasks
modernbert score runs/labels/model test.csv                      # score a fine-tuned model on rows
modernbert fill-mask MODEL "The capital of France is [MASK]."
modernbert classify MODEL "A text."
modernbert tag MODEL --input texts.jsonl --json
modernbert answer MODEL --context article.txt "Who wrote it?"
modernbert embed texts.jsonl MODEL -o vectors.npy                # vectors to a file
modernbert embed texts.jsonl MODEL -o texts.index                # an index to search
modernbert search texts.index MODEL "what to look for" --top-k 5
modernbert rerank MODEL "a query" "one document" "another"
modernbert serve labels=runs/labels/model runs/retriever/model   # HTTP; routes of TEI and OpenAI
modernbert export onnx MODEL -o exported                         # for ONNX Runtime and others
modernbert info FOLDER                                           # what any path is
modernbert verify FOLDER                                         # whether files are as written
modernbert push FOLDER owner/name                                # to the hub
```

In Python:

```python
import modernbert

model = modernbert.load("runs/mine/model")  # any model folder, as the class for its kind
embedder = modernbert.Embedder.from_pretrained("runs/mine/model")
vectors = embedder.encode(["A text.", "Another."])  # (2, dim) float32
results = modernbert.finetune(
    "classify",
    {
        "model": "runs/mine/model",
        "output": "runs/labels",
        "data": {"train": [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]},
        "training": {"epochs": 1},
    },
)  # the best model is then in runs/labels/model
```

`modernbert.accelerate(model)` makes a model of transformers or sentence-transformers compute on these kernels, in
place; `modernbert.restore(model)` undoes it.
"""


def text() -> str:
    """The whole file."""
    return "\n".join([ABOUT, JOBS, *_kinds(), *_verbs(), *_errors(), *_pages()])


def _kinds() -> Iterator[str]:
    yield "## Kinds of models\n"
    for facts in MODELS.values():
        made = (
            f"made by `modernbert {facts.made_by}`" if facts.made_by else "made by other programs"
        )
        in_python = facts.used_as.partition(":")[2]
        yield f"- {facts.name}: {made}, used by `modernbert {facts.used_by}` and `{in_python}`"
    yield ""


def _verbs() -> Iterator[str]:
    """Each verb with its flags; those that the verbs of `finetune` share stand once."""
    found = list(verbs())
    group = [verb for verb in found if verb.name.startswith("finetune ")]
    counts = Counter(spelled for verb in group for spelled in _spelled(verb))
    shared = [spelled for spelled, count in counts.items() if count == len(group)]
    yield "## Every verb and its flags\n"
    for verb in found:
        own = _spelled(verb)
        if verb in group:
            own = ["those of every `finetune` verb", *(each for each in own if each not in shared)]
        yield f"- `{verb.usage}`: {verb.summary} Flags: {', '.join(own) or 'none'}."
    yield f"- Flags of every `finetune` verb: {', '.join(shared)}.\n"


def _spelled(verb: Verb) -> list[str]:
    """Each option with what it takes, as `--kind <float32|int8>`."""
    return [f"`{name}`" for name in verb.option_names if "--help" not in name]


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield "Each message is one line: what was given, what was expected, what to do. Exit codes: 0 success, 2 a mistake"
    yield "of yours, 75 run the same command again, 130 or 143 stopped with everything saved, 1 a bug. In Python catch"
    yield "`modernbert.ModernBertError`, or from `modernbert.errors`:\n"
    for name, each in vars(errors).items():
        if inspect.isclass(each) and issubclass(each, errors.ModernBertError):
            yield f"- `{name}`: {(each.__doc__ or '').partition(chr(10))[0]}"
    yield ""


def _pages() -> Iterator[str]:
    yield "## Documents\n"
    for path, about in (
        ("docs/pretraining.md", "from a corpus to a model"),
        ("docs/recipes.md", "every key of a recipe"),
        ("docs/finetuning.md", "labels, numbers, entities, answers"),
        ("docs/retrieval.md", "retrievers, rerankers, mining, losses"),
        ("docs/inference.md", "using a model in Python and in the shell"),
        ("docs/serving.md", "the server: routes, limits, metrics"),
        ("docs/export.md", "ONNX and other formats"),
        ("docs/interop.md", "transformers and sentence-transformers models made fast"),
        ("docs/tutorials", "programs to begin from"),
    ):
        yield f"- [{path}]({path}): {about}"
    yield ""
