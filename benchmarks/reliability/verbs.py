"""The verbs that write, each with tiny inputs, for `kills.py`."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.reliability.kills import Verb
from benchmarks.reliability.samples import TEXTS, write_corpus

_PRECISION = ("--precision", "float32")
_TIMES = frozenset(("metrics.jsonl", "report.html", "recipe.toml", "run.lock", "README.md"))
_RECIPE = """output = "run"
tokenizer = "tokenizer"
[[sources]]
shards = "shards"
[model]
preset = "tiny"
hidden_size = 64
num_heads = 1
intermediate_size = 64
num_layers = 2
[packing]
max_seqlen = 64
bin_tokens = 128
[batch]
bins_per_step = 1
[training]
total_tokens = 1024
checkpoint_every_steps = 2
[training.schedule]
peak_learning_rate = 1e-3
warmup_tokens = 256
"""


def all_verbs(samples: Mapping[str, Path]) -> list[Verb]:
    """Every verb that writes.

    Args:
        samples: Folders of models, a tokenizer and shards, as `samples.write_samples` gives them.
    """

    def inputs(*names: str, more: Callable[[Path], None] | None = None) -> Callable[[Path], None]:
        def prepare(home: Path) -> None:
            for name in names:
                shutil.copytree(samples[name], home / name)
            if more is not None:
                more(home)

        return prepare

    def texts(home: Path) -> None:
        write_corpus(home / "texts.jsonl")

    def embed(output: str, *more: str) -> Verb:
        outputs = [output]
        if output.endswith(".npy"):
            outputs.append(output.replace(".npy", ".ids.jsonl"))
        model = "multi_vector" if "several" in output else "embedder"
        return Verb(
            name=f"embed -o {output}",
            arguments=("embed", "texts.jsonl", model, "-o", output, *_PRECISION, *more),
            outputs=outputs,
            prepare=inputs(model, more=texts),
        )

    return [
        embed("out.npy"),
        embed("out.parquet"),
        embed("out.index", "--kind", "int8"),
        embed("several.index"),
        Verb(
            name="tokenizer train",
            arguments=("tokenizer", "train", "texts.jsonl", "made", "--vocab-size", "384"),
            outputs=["made"],
            prepare=inputs(more=texts),
        ),
        Verb(
            name="prepare",
            arguments=("prepare", "texts.jsonl", "made", "--tokenizer", "tokenizer"),
            outputs=["made"],
            prepare=inputs("tokenizer", more=texts),
            ignored=frozenset(("prepare.json",)),  # the time of the corpus
        ),
        Verb(
            name="mine",
            arguments=("mine", "pairs.jsonl", "embedder", "-o", "out.jsonl", *_PRECISION),
            outputs=["out.jsonl"],
            prepare=inputs("embedder", more=_pairs),
        ),
        Verb(
            name="export safetensors",
            arguments=("export", "safetensors", "embedder", "-o", "out", "--precision", "float16"),
            outputs=["out"],
            prepare=inputs("embedder"),
        ),
        Verb(
            name="pretrain",
            arguments=("pretrain", "recipe.toml"),
            outputs=["run/model", "run/checkpoints"],
            prepare=inputs(
                "tokenizer", "shards", more=lambda home: _write(home / "recipe.toml", _RECIPE)
            ),
            ignored=_TIMES,
        ),
        Verb(
            name="average",
            arguments=("average", "masked_lm", "masked_lm", "-o", "out"),
            outputs=["out"],
            prepare=inputs("masked_lm"),
            ignored=_TIMES,
        ),
        Verb(
            name="finetune classify",
            arguments=(*_finetune("classify", "masked_lm"), "--seeds", "1", "--seeds", "2"),
            outputs=["run/model", "run/results.json"],
            prepare=inputs("masked_lm", more=_labels),
            ignored=_TIMES | {"results.json"},
        ),
        Verb(
            name="finetune retrieve",
            arguments=_finetune("retrieve", "embedder"),
            outputs=["run/model", "run/results.json"],
            prepare=inputs("embedder", more=_pairs),
            ignored=_TIMES | {"results.json"},
        ),
    ]


def _finetune(verb: str, model: str) -> tuple[str, ...]:
    rows = "rows.jsonl" if verb == "classify" else "pairs.jsonl"
    return (
        "finetune",
        verb,
        *("--model", model, "--train", rows, "--output", "run", "--epochs", "1"),
        *("--batch-size", "16"),
    )


def _labels(home: Path) -> None:
    rows = [{"text": text, "label": "root" if "root" in text else "square"} for text in TEXTS]
    _write(home / "rows.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def _pairs(home: Path) -> None:
    rows = [
        {
            "query": f"What is the square of {i}?",
            "positive": f"The square of number {i} is {i * i}.",
        }
        for i in range(40)
    ]
    _write(home / "pairs.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
