"""Tiny folders of everything that this package writes, to be killed, flipped and crafted."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.data.shard_files import ShardWriter
from modernbert.data.shards import SpecialTokens
from modernbert.inference.embedder import Embedder, EmbedderSettings
from modernbert.inference.index import Index, write_faiss
from modernbert.inference.index_folder import build_index
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.tasks.ranking.rerank import save_reranker
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

TEXTS = tuple(
    f"The {word} of number {i} is {i * i}." for i in range(40) for word in ("square", "root")
)
_DIM = 8


def make_tokenizer() -> Tokenizer:
    """A tokenizer of 512 tokens."""
    return train(list(TEXTS), vocab_size=512)


def tiny_config(tokenizer: Tokenizer) -> EncoderConfig:
    """Two layers of 64 numbers, a global and a local one."""
    names = ("vocab_size", "mask_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
    return EncoderConfig.preset(
        "tiny",
        **{name: getattr(tokenizer, name) for name in (*names, "unk_token_id")},
        hidden_size=64,
        num_heads=1,
        intermediate_size=64,
        max_seqlen=64,
        layer_kinds=layer_kinds(2),
    )


def write_samples(home: Path) -> dict[str, Path]:
    """Write a folder of each kind.

    Args:
        home: A folder that is there; those of the kinds come into it.

    Returns:
        The folders, by what they hold.
    """
    tokenizer = make_tokenizer()
    config = tiny_config(tokenizer)
    encoder = initialize(Encoder(config), seed=0)
    models: dict[str, Any] = {
        "masked_lm": MaskedLanguageModel(config),
        "classifier": SequenceClassifier(config, ClassifierSettings(labels=("bad", "good"))),
        "tagger": TokenClassifier(config, ClassifierSettings(labels=("O", "B-NUM", "I-NUM"))),
        "answerer": SpanClassifier(config, ClassifierSettings(labels=("start", "end"))),
    }
    for name, model in models.items():
        initialize(model, seed=0).save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    settings = EmbedderSettings(prompts={"query": "root ", "document": "square "})
    Embedder(encoder, tokenizer, settings).save_pretrained(home / "embedder")
    multi = MultiVectorModel(encoder, [projection(64, 16, seed=0)]).requires_grad_(False)
    marked = MultiVectorSettings(prompts={"query": "[unused0]", "document": "[unused1]"})
    MultiVectorEmbedder(multi, tokenizer, marked).save_pretrained(home / "multi_vector")
    SparseEmbedder(models["masked_lm"], tokenizer).save_pretrained(home / "sparse")
    reranker = SequenceClassifier(
        config, ClassifierSettings(labels=("relevance",), problem="regression")
    )
    save_reranker(
        initialize(reranker, seed=0),
        tokenizer,
        home / "reranker",
        activation="Sigmoid",
        max_seqlen=32,
    )
    tokenizer.save_pretrained(home / "tokenizer")
    _write_vectors(home)
    _write_changed(home)
    _write_shards(home / "shards", tokenizer)
    return {path.name: path for path in sorted(home.iterdir()) if path.is_dir()}


def _write_vectors(home: Path) -> None:
    """Indexes of every kind, of documents with one vector and with several."""
    vectors = np.random.default_rng(0).normal(size=(20, _DIM)).astype(np.float32)
    ids = [f"document {i}" for i in range(len(vectors))]
    for kind in ("float32", "int8", "binary"):
        build_index(home / f"{kind}.index", [vectors], ids=ids, kind=kind)  # type: ignore[arg-type]
    texts = [vectors[start : start + 2] for start in range(0, 20, 2)]
    for kind in ("float16", "int8"):
        place = home / f"several-{kind}.index"
        build_index(place, [texts], ids=ids[:10], kind=kind)  # type: ignore[arg-type]


def _write_changed(home: Path) -> None:
    """Indexes that find texts by words too: one as it was built, and one that was changed."""
    vectors = np.random.default_rng(1).normal(size=(30, 64)).astype(np.float32)
    ids = [f"document {i}" for i in range(30)]
    for name in ("words", "changed"):
        place, first = home / f"{name}.index", TEXTS[:20]
        build_index(place, [vectors[:20]], ids=ids[:20], texts=first, bm25="english")
    index = Index.open(home / "changed.index")
    index.add([vectors[18:24]], ids=ids[18:24], texts=TEXTS[18:24])
    index.delete(ids[:2])
    write_faiss(home / "words.index")


def _write_shards(folder: Path, tokenizer: Tokenizer) -> None:
    names = ("cls", "sep", "pad", "mask", "unk")
    special = SpecialTokens(**{name: getattr(tokenizer, f"{name}_token_id") for name in names})
    with ShardWriter(
        folder,
        vocab_size=tokenizer.vocab_size,
        tokenizer_fingerprint=tokenizer.fingerprint,
        special_token_ids=special,
        shard_tokens=300,
    ) as writer:
        for text in TEXTS:
            writer.add(tokenizer.encode(text, special_tokens=False))


def write_corpus(path: Path, *, copies: int = 1) -> None:
    """Write the texts as JSON Lines with ids."""
    rows = [
        json.dumps({"id": f"{copy}-{i}", "text": text})
        for copy in range(copies)
        for i, text in enumerate(TEXTS)
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
