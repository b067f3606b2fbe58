"""A folder with all that the commands of the documents name, small enough to run in seconds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.tasks.pretraining.small import make_tokenizer, texts, write_shards

import modernbert
from modernbert import EncoderConfig, Tokenizer
from modernbert.model.config import layer_kinds
from modernbert.model.heads import ClassifierSettings, SpanClassifier
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import MultiVectorModel, projection

TEXTS = list(texts(24, seed=5))
QUESTION = "one two"
_MODELS = {
    "runs/mine/model": "masked",
    "runs/books/model": "masked",
    "answerdotai/ModernBERT-base": "masked",
    "one/model": "masked",
    "other/model": "masked",
    "runs/first/model": "vectors",
    "runs/second/model": "vectors",
    "runs/retriever/model": "vectors",
    "runs/late/model": "tokens",
    "runs/reranker/model": "relevance",
    "runs/labels/model": "good bad",
    "runs/reviews/model": "good bad",
    "runs/entities/model": "B-PER O",
    "runs/questions/model": "start end",
}
# What `MODEL` stands for, where a verb wants more than a masked language model.
MODEL_OF = {
    "classify": "runs/labels/model",
    "tag": "runs/entities/model",
    "answer": "runs/questions/model",
    "rerank": "runs/reranker/model",
}


def write_all(folder: Path) -> None:
    """Write the models, shards, rows and recipes."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, kind in _MODELS.items():
        _write_model(folder / name, kind, tokenizer)
    write_shards(folder / "shards", tokenizer, TEXTS)
    for name in ("shards/held-out", "shards/books/held-out"):
        write_shards(folder / name, tokenizer, TEXTS[:8])
    for name in ("corpus/a.jsonl", "texts/a.jsonl", "texts.jsonl", "docs.jsonl"):
        _write_rows(folder / name, ({"text": text} for text in TEXTS))
    for name in ("documents.jsonl", "articles.jsonl"):
        _write_rows(folder / name, ({"title": "one", "text": f"{text}."} for text in 2 * TEXTS))
    _write_rows(folder / "new.jsonl", ({"id": f"n{i}", "text": t} for i, t in enumerate(TEXTS)))
    (folder / "article.txt").write_text(TEXTS[0])
    _write_labelled(folder)
    _write_pairs(folder)
    _write_recipes(folder)


def _write_model(folder: Path, kind: str, tokenizer: Tokenizer) -> None:
    names = ("unk_token_id", "cls_token_id", "sep_token_id", "pad_token_id", "mask_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    config = EncoderConfig.preset(
        "tiny",
        vocab_size=tokenizer.vocab_size,
        **ids,
        hidden_size=64,
        num_heads=1,
        intermediate_size=64,
        layer_kinds=layer_kinds(2),
    )
    if kind == "masked":
        model: Any = modernbert.MaskedLanguageModel(config)
    elif kind in ("vectors", "tokens"):
        encoder = initialize(modernbert.Encoder(config), seed=0)
        if kind == "vectors":
            modernbert.Embedder(encoder, tokenizer).save_pretrained(folder)
        else:
            multi = MultiVectorModel(encoder, [projection(config.hidden_size, 16, seed=0)])
            modernbert.MultiVectorEmbedder(multi, tokenizer).save_pretrained(folder)
        return
    else:
        labels = tuple(kind.split())
        heads = {"B-PER": modernbert.TokenClassifier, "start": SpanClassifier}
        head = heads.get(labels[0], modernbert.SequenceClassifier)
        problem = "regression" if len(labels) == 1 else "single_label"
        model = head(config, ClassifierSettings(labels=labels, problem=problem))
    initialize(model, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_labelled(folder: Path) -> None:
    lines = [f"{text},{'good' if i % 2 else 'bad'}" for i, text in enumerate(TEXTS)]
    for name in ("train", "dev", "test", "new", "few"):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        (folder / f"{name}.conll").write_text("one B-PER\ntwo O\n\n" * 12)
    numbers = [f"{text},{i}" for i, text in enumerate(TEXTS)]
    (folder / "numbers.csv").write_text("\n".join(["text,score", *numbers]) + "\n")
    answers = {"text": [TEXTS[0].split()[0]], "answer_start": [0]}
    asked = [{"question": QUESTION, "id": str(i), "answers": answers} for i in range(12)]
    rows = [{"context": TEXTS[0], **each} for each in asked]
    (folder / "train.json").write_text(json.dumps(rows))


def _write_pairs(folder: Path) -> None:
    pairs = [{"query": text.split()[0], "positive": text} for text in TEXTS]
    for name in ("pairs", "dev"):
        _write_rows(folder / f"{name}.jsonl", pairs)
    for name in ("mined", "web"):
        _write_rows(folder / f"{name}.jsonl", ({**p, "negatives": [TEXTS[0]]} for p in pairs[1:]))
    scored = ({**p, "negatives": [TEXTS[0]], "scores": [2.0, 1.0]} for p in pairs[1:])
    _write_rows(folder / "scored.jsonl", scored)


def _write_recipes(folder: Path) -> None:
    (folder / "recipe.toml").write_text("""\
output = "runs/mine"
tokenizer = "tokenizer"
model = { preset = "tiny" }
sources = [{ shards = "shards" }]
packing = { max_seqlen = 64, bin_tokens = 256 }
batch = { bins_per_step = 1 }
[training]
total_tokens = 1000
[training.schedule]
peak_learning_rate = 1e-3
warmup_tokens = 100
decay = "1-sqrt"
decay_tokens = 100
""")
    data = 'model = "runs/mine/model"\noutput = "runs/{0}"\n[data]\ntrain = "{1}"\n'
    (folder / "reviews.toml").write_text(data.format("of-reviews", "train.csv"))
    (folder / "retriever.toml").write_text(data.format("of-retriever", "pairs.jsonl"))
