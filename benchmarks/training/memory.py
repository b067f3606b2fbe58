"""Claim: pretraining at base size takes the memory that `modernbert plan` predicted, within 15%.

    python -m benchmarks.training.memory

For each case a recipe is planned and then trained for a few steps, both by the command line, each
in a process of its own. What is compared is the most memory that the process had resident; the
corpus is the text of the Python installation, the tokenizer has all of base's entries.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks import command, results
from benchmarks.command import run_module
from modernbert.cli.prepare import prepare_shards
from modernbert.cli.tokenizer import train_on
from modernbert.data.python_corpus import collect_python_corpus
from modernbert.data.settings import PrepareSettings

RESULT = results.FOLDER / "training" / "memory.json"
WITHIN = 0.15
VOCAB_SIZE = 50_368
# Longest sequence, tokens of a bin, activations computed again.
CASES = ((1_024, 4_096, False), (8_192, 8_192, False), (8_192, 8_192, True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a prediction is too far off."""
    options = command.parser(
        __doc__,
        size=("base", "a preset"),
        vocab_size=(VOCAB_SIZE, "entries of the tokenizer"),
        steps=(6, "of each run"),
    ).parse_args(arguments)
    result = command.measured("memory_as_planned", measure_all, options, RESULT)
    return int(max(abs(each["ratio"] - 1) for each in result["cases"]) > WITHIN)


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Every case, each printed when it is done."""
    corpus, cases = prepare(options.cache, options.vocab_size), []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            cases.append(measure(options, corpus, Path(folder), *case))
        print(describe(cases[-1]), flush=True)
    return {"model": options.size, "cases": cases}


def prepare(cache: Path, vocab_size: int) -> Path:
    """The folder of tokenizer and shards, made once."""
    folder = cache / f"memory-{vocab_size}"
    text = folder / "corpus" / "train.jsonl"
    if not text.exists():
        collect_python_corpus(folder / "corpus")
    if not (folder / "tokenizer" / "tokenizer_config.json").exists():
        train_on([text], vocab_size).save_pretrained(folder / "tokenizer")
    prepare_shards([text], folder / "shards", folder / "tokenizer", PrepareSettings())
    return folder


def measure(
    options: argparse.Namespace,
    corpus: Path,
    folder: Path,
    max_seqlen: int,
    bin_tokens: int,
    recompute: bool,
) -> dict[str, Any]:
    """Planned and real bytes of one case."""
    recipe = folder / "recipe.toml"
    recipe.write_text(
        tomli_w.dumps(
            {
                "output": str(folder / "run"),
                "tokenizer": str(corpus / "tokenizer"),
                "sources": [{"shards": str(corpus / "shards")}],
                "model": {"preset": options.size},
                "packing": {"max_seqlen": max_seqlen, "bin_tokens": bin_tokens},
                "batch": {"bins_per_step": 1, "bins_per_micro_batch": 1},
                "computation": {"recompute": recompute},
                "training": {
                    "total_tokens": options.steps * bin_tokens,
                    "schedule": {"peak_learning_rate": 1e-4},
                },
            }
        )
    )
    plan = json.loads(run_module("modernbert", "plan", recipe, "--kind", "cpu", "--json"))
    run_module("modernbert", "pretrain", recipe)
    records = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    real = max(each["memory_bytes"] for each in records if each["kind"] == "step")
    planned = plan["phases"][0]["memory_bytes"]["total"]
    return {
        "max_seqlen": max_seqlen,
        "bin_tokens": bin_tokens,
        "recompute": recompute,
        "planned_bytes": planned,
        "real_bytes": real,
        "ratio": real / planned,
    }


def describe(case: Mapping[str, Any]) -> str:
    """A case in a line."""
    return (
        f"{case['bin_tokens']:,} tokens, up to {case['max_seqlen']:,} each"
        f"{', recomputed' if case['recompute'] else ''}: planned "
        f"{case['planned_bytes'] / 1e9:.2f} GB, real {case['real_bytes'] / 1e9:.2f} GB, "
        f"ratio {case['ratio']:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
