"""The verbs that write, each with tiny inputs, for `kills.py`."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.flips import verify
from tests.reliability.kills import Verb
from tests.reliability.samples import TEXTS, write_corpus

from modernbert.files import updated_folder

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
total_tokens = 512
checkpoint_every_steps = 2
[training.schedule]
peak_learning_rate = 1e-3
warmup_tokens = 256
"""


def all_verbs(samples: Mapping[str, Path], named: Sequence[str] = ()) -> list[Verb]:
    """Every verb that writes.

    Args:
        samples: Folders of models, a tokenizer and shards, as `samples.write_samples` gives them.
        named: Parts of the names of those that are wanted; all when empty.
    """
    verbs = _all_verbs(samples)
    return [each for each in verbs if not named or any(part in each.name for part in named)]


def _all_verbs(samples: Mapping[str, Path]) -> list[Verb]:

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
        embed("words.index", "--bm25", "english"),
        embed("faiss.index", "--faiss"),
        Verb(
            name="embed -o out.jsonl (sparse)",
            arguments=("embed", "texts.jsonl", "sparse", "-o", "out.jsonl", *_PRECISION),
            outputs=["out.jsonl"],
            prepare=inputs("sparse", more=texts),
        ),
        *_index_changes(inputs),
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
            prepare=inputs("embedder", more=write_pairs),
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
            name="tokenizer extend",
            arguments=("tokenizer", "extend", "tokenizer", "made", "--token", "[NEW]"),
            outputs=["made"],
            prepare=inputs("tokenizer"),
        ),
        Verb(
            name="export onnx",
            arguments=("export", "onnx", "embedder", "-o", "out"),
            outputs=["out"],
            prepare=inputs("embedder"),
            ignored=_TIMES,
        ),
        Verb(
            name="classify -o out.jsonl",
            arguments=("classify", "classifier", "--input", "texts.jsonl", "-o", "out.jsonl"),
            outputs=["out.jsonl"],
            prepare=inputs("classifier", more=texts),
        ),
        Verb(
            name="score --calibrate",
            arguments=("score", "classifier", "rows.jsonl", "--calibrate", "-o", "page"),
            outputs=["classifier"],
            prepare=inputs("classifier", more=lambda home: write_labels(home, "good", "bad")),
            ignored=_TIMES,
        ),
        *_tunings(inputs),
        Verb(
            name="evaluate (a suite)",
            arguments=("evaluate", "masked_lm", "suite.toml", "-o", "run", *_PRECISION),
            outputs=["run/results.json", "run/labels/result.json"],
            prepare=inputs("masked_lm", more=_suite),
            ignored=_TIMES,
        ),
        Verb(
            name="evaluate (retrieval)",
            arguments=("evaluate", "embedder", "judged", "-o", "run", *_PRECISION),
            outputs=["run/results.json"],
            prepare=inputs("embedder", more=_judged),
            ignored=_TIMES,
        ),
        Verb(
            name="push (to a stand-in)",
            arguments=("push", "embedder", "owner/name"),
            outputs=["hub"],
            prepare=inputs("embedder", more=_card),
            set_up=_use_stand_in,
        ),
    ]


def _index_changes(inputs: Callable[..., Any]) -> list[Verb]:
    """Changes of an index that was changed before; some that are made twice are as if made once."""
    add = ("embed", "more.jsonl", "embedder", "-o", "changed.index", "--add", *_PRECISION)

    def more(home: Path) -> None:
        rows = [{"id": f"document {i}", "text": TEXTS[i]} for i in range(3, 12)]
        _write(home / "more.jsonl", "\n".join(map(json.dumps, rows)) + "\n")

    changes = {
        "embed --add": add,
        "index delete": ("index", "delete", "changed.index", "document 1", "document 8"),
        "index compact": ("index", "compact", "changed.index"),
    }
    return [
        Verb(
            name=name,
            arguments=arguments,
            outputs=["changed.index"],
            prepare=inputs("embedder", "changed.index", more=more),
            found=_found,
        )
        for name, arguments in changes.items()
    ]


def _found(home: Path) -> str:
    """What an index holds, however many changes it took to get there."""
    from modernbert.inference.index import Index

    index = Index.open(home / "changed.index")
    queries = np.eye(index.manifest.dim, dtype=np.float32)[:8]
    hits = [[(hit.id, hit.text) for hit in each] for each in index.search(queries, 30)]
    words = [(hit.id, hit.text) for hit in index.search(texts="square 25 root", top_k=30)[0]]
    return repr((hits, words, verify(home / "changed.index")))


def _tunings(inputs: Callable[..., Any]) -> list[Verb]:
    """Fine-tunings, each alone and as a sweep whose runs are trained at once by other processes."""
    found = []
    kinds = (
        ("classify", "masked_lm", "rows.jsonl", write_labels),
        ("retrieve", "embedder", "pairs.jsonl", write_pairs),
    )
    for kind, model, rows, write in kinds:
        arguments = (
            *("finetune", kind, "--model", model, "--train", rows, "--dev", rows),
            *("--output", "run", "--epochs", "1", "--batch-size", "32"),
        )
        one = Verb(
            name=f"finetune {kind}",
            arguments=arguments,
            outputs=["run/model", "run/results.json"],
            prepare=inputs(model, more=write),
            ignored=_TIMES,
        )
        found.append(one)
    one, seeds = found[0], ("--seeds", "2")
    in_turn = replace(one, name="a sweep", arguments=(*one.arguments, *seeds, "--processes", "1"))
    at_once = replace(
        one,
        name="a sweep of two processes",
        arguments=(*one.arguments, *seeds, "--processes", "2"),
        only_random=True,
    )
    return [*found, in_turn, at_once]


def _card(home: Path) -> None:
    (home / "hub").mkdir()
    _write(home / "embedder" / "README.md", "A model for a test of kills.")


def _use_stand_in() -> None:
    """Push into the folder `hub` instead of to the hub; as there, a commit is whole or absent."""
    import huggingface_hub

    class StandIn:
        def create_repo(self, *, repo_id: str, **_: Any) -> str:
            Path("hub", repo_id).mkdir(parents=True, exist_ok=True)
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
            with updated_folder(Path("hub", repo_id)) as commit:
                shutil.copytree(folder_path, commit, dirs_exist_ok=True)

    huggingface_hub.HfApi = StandIn  # type: ignore[misc, assignment]
    huggingface_hub.get_token = lambda: "a token"


def _suite(home: Path) -> None:
    write_labels(home)
    _judged(home)
    _write(
        home / "suite.toml",
        """name = "both"
[[tasks]]
name = "labels"
kind = "classify"
train = "rows"
dev = "rows"
metric = "accuracy"
[tasks.training]
epochs = 1
batch_size = 32
[[tasks]]
name = "search"
kind = "retrieve"
data = "judged"
metric = "ndcg@10"
""",
    )


def _judged(home: Path) -> None:
    (home / "judged" / "qrels").mkdir(parents=True)
    texts = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(TEXTS[:20])]
    _write(home / "judged" / "corpus.jsonl", "\n".join(texts) + "\n")
    _write(home / "judged" / "queries.jsonl", json.dumps({"_id": "q", "text": "root of 3"}) + "\n")
    _write(home / "judged" / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq\td7\t1\n")


def write_labels(home: Path, first: str = "root", second: str = "square") -> None:
    rows = [{"text": text, "label": first if "root" in text else second} for text in TEXTS]
    _write(home / "rows.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def write_pairs(home: Path) -> None:
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
