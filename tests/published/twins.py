"""Tiny twins of published ModernBERTs: what is peculiar about each, and writing its folder.

Each twin has the layout of a published folder: its keys that differ, small sizes, and a vocabulary
of its kind that is trained here. Steps behind the encoder are written by sentence-transformers, or
as PyLate writes them. docs/models.md lists the models.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tests.model.examples import with_random_weights
from tests.tokenizer.test_roles import (
    Backend,
    gemma_like,
    hebrew_like,
    japanese_like,
    llm_jp_like,
    roberta_like,
)

from modernbert import Tokenizer
from modernbert.tokenizer.train import train

Keys = Mapping[str, Any]
Steps = Literal["pooled", "pylate", "splade", "scorer"]
WIDTH = 32


def bert_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """ModernBERT's own kind of vocabulary."""
    tokenizer = train(texts, vocab_size=448)
    return Backend.from_str(json.dumps(tokenizer.definition)), dict(tokenizer.roles)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What is peculiar about a published model.

    Attributes:
        config: Keys of its config.json; sizes are small here.
        head: The class of transformers behind `ModernBert`.
        extra: Tensors that its file has besides the model's.
        verb: What it is fine-tuned for.
        steps: The steps behind the encoder, where it has some.
        said: What these are told: pooling, prompts and so on.
    """

    tokenizer: Callable[[list[str]], tuple[Backend, dict[str, str]]] = bert_like
    config: Keys = field(default_factory=dict)
    head: str = "ForMaskedLM"
    extra: tuple[str, ...] = ()
    verb: str = "classify"
    steps: Steps | None = None
    said: Keys = field(default_factory=dict)


OLD = {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0, "layer_norm_eps": 1e-5}
RAISED = {**OLD, "local_rope_theta": 160_000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
FIVE: dict[str, Any] = {
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_theta": 160_000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
    },
    "dtype": "bfloat16",
}
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "classifier_pooling": "mean"}
CROSS = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.0.1"}
CLASSES = "ForSequenceClassification"
MARKS = {"query_prefix": "[Q] ", "document_prefix": "[D] "}
LATER = {"model_type": "ColBERT", "skiplist_words": [".", ","]}


def pooled(pooling: str, **said: Any) -> dict[str, Any]:
    return {
        "head": "Model",
        "verb": "retrieve",
        "steps": "pooled",
        "said": {"pooling": pooling, **said},
    }


def reranker(config: Keys) -> dict[str, Any]:
    keys = {**ONE_LABEL, "sentence_transformers": CROSS, **config}
    return {"config": keys, "head": CLASSES, "verb": "rerank"}


def late(**said: Any) -> dict[str, Any]:
    return {"head": "Model", "verb": "late-interaction", "steps": "pylate", "said": said}


TWINS: dict[str, Twin] = {
    "answerdotai/ModernBERT-base": Twin(config={**OLD, "reference_compile": True}),
    "answerdotai/ModernBERT-large": Twin(
        config={**OLD, "sparse_prediction": True}, verb="late-interaction"
    ),
    "jhu-clsp/ettin-encoder-17m": Twin(
        config={**RAISED, "is_causal": False, "causal_mask": False}, verb="rerank"
    ),
    "jhu-clsp/mmBERT-base": Twin(
        tokenizer=gemma_like,
        config={**RAISED, "position_embedding_type": "sans_pos"},
        verb="tag",
    ),
    "llm-semantic-router/mmbert-32k-yarn": Twin(
        tokenizer=gemma_like,
        config={
            **{key: FIVE[key] for key in ("layer_types", "dtype")},
            "max_position_embeddings": 128,
            "rope_parameters": {
                key: {"rope_theta": 160_000.0, **YARN}
                for key in ("full_attention", "sliding_attention")
            },
        },
    ),
    "sbintuitions/modernbert-ja-130m": Twin(tokenizer=japanese_like, config=OLD, verb="answer"),
    "llm-jp/llm-jp-modernbert-base": Twin(tokenizer=llm_jp_like, config=OLD),
    "HebArabNlpProject/HebrewModernBERT": Twin(tokenizer=hebrew_like, config=OLD, verb="tag"),
    "a RoBERTa-like vocabulary": Twin(tokenizer=roberta_like, config=OLD, verb="rerank"),
    "thomas-sounack/BioClinical-ModernBERT-base": Twin(
        config={**OLD, "transformers_version": "4"}, verb="regress"
    ),
    "Simonlee711/Clinical_ModernBERT": Twin(config={**OLD, "tie_word_embeddings": True}),
    "LSX-UniWue/ModernGBERT_134M": Twin(
        config={**OLD, "bos_token_id": None, "eos_token_id": None}, extra=("loss_function.weight",)
    ),
    "BSC-LT/MrBERT-es": Twin(
        tokenizer=roberta_like, config={**RAISED, "local_attention": 16}, verb="answer"
    ),
    "answerdotai/ModernBERT-base, saved by transformers 5": Twin(config=FIVE, verb="retrieve"),
    "ibm-granite/granite-embedding-english-r2": Twin(
        config={**OLD, "global_rope_theta": 80_000.0, "classifier_pooling": "cls"},
        **pooled("cls", normalize=True),
    ),
    "ibm-granite/granite-embedding-97m-multilingual-r2": Twin(
        tokenizer=roberta_like,
        config={**OLD, "hidden_activation": "silu", "max_position_embeddings": 32_768},
        extra=("rotary_emb.full_attention_inv_freq",),
        **pooled("cls", normalize=True),
    ),
    "Alibaba-NLP/gte-modernbert-base": Twin(config=OLD, **pooled("cls")),
    "nomic-ai/modernbert-embed-base": Twin(
        config={**OLD, "max_length": 512},
        **pooled("mean", normalize=True),
    ),
    "lightonai/modernbert-embed-large": Twin(
        config=OLD,
        **pooled(
            "mean",
            truncate_dim=24,
            prompts={"query": "search_query: ", "document": "search_document: "},
        ),
    ),
    "cl-nagoya/ruri-v3-130m": Twin(
        tokenizer=japanese_like,
        config=OLD,
        **pooled("mean", prompts={"Retrieval-query": "q: ", "Retrieval-passage": "d: "}),
    ),
    "google's way: two Dense behind the pooling": Twin(
        tokenizer=gemma_like, config=RAISED, **pooled("mean", dense=(48, 16), normalize=True)
    ),
    "lightonai/GTE-ModernColBERT-v1": Twin(config=OLD, **late(**MARKS, **LATER)),
    "lightonai/Reason-ModernColBERT": Twin(config=OLD, **late(**MARKS, query_length=48)),
    "mixedbread-ai/mxbai-edge-colbert-v0-17m": Twin(
        config=RAISED,
        **late(**MARKS, **LATER, dense=(64, 24), use_residual=True, do_query_expansion=False),
    ),
    "a SPLADE of sentence-transformers": Twin(config=OLD, verb="sparse", steps="splade"),
    "Alibaba-NLP/gte-reranker-modernbert-base": Twin(**reranker(OLD)),
    "tomaarsen/reranker-ModernBERT-base-gooaq-bce": Twin(**reranker({**FIVE, "dtype": "float32"})),
    "cl-nagoya/ruri-v3-reranker-310m": Twin(tokenizer=japanese_like, **reranker(OLD)),
    "cross-encoder/ettin-reranker-17m-v1": Twin(
        config=RAISED, head="Model", verb="rerank", steps="scorer"
    ),
    "KRLabsOrg/lettucedect-base-modernbert-en-v1": Twin(
        config={**OLD, "id2label": {"0": "supported", "1": "hallucinated"}},
        head="ForTokenClassification",
        verb="tag",
    ),
    "a decoder of its own without a bias": Twin(
        config={**OLD, "decoder_bias": False, "tie_word_embeddings": False}, verb="sparse"
    ),
    "a model that answers questions": Twin(config=OLD, head="ForQuestionAnswering", verb="answer"),
    "a classifier with labels that lag behind": Twin(
        config={
            **OLD,
            "id2label": {"0": "bad", "1": "fair", "2": "good"},
            "label2id": {"LABEL_0": 0, "LABEL_1": 1},
            "classifier_activation": "gelu_pytorch_tanh",
            "classifier_bias": True,
        },
        head=CLASSES,
    ),
}


def published_keys(twin: Twin, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a twin's config.json, with a vocabulary that is padded."""
    roles = ("cls", "sep", "pad", "mask")
    return {
        "architectures": [f"ModernBert{twin.head}"],
        "model_type": "modernbert",
        "vocab_size": -(-tokenizer.vocab_size // 64) * 64 + 64,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 8_192,
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "attention_bias": False,
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "gradient_checkpointing": False,
        "repad_logits_with_grad": False,
        "norm_eps": 1e-5,
        **{f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in roles},
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        **twin.config,
    }


def write_twin(twin: Twin, folder: Path, texts: list[str]) -> None:
    """Write a twin's folder as it would be published: its weights are transformers' own."""
    import transformers

    backend, roles = twin.tokenizer(texts)
    backend.add_tokens([mark for mark in MARKS.values() if mark in twin.said.values()])
    backend.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    config = json.dumps(published_keys(twin, Tokenizer.from_pretrained(folder)))
    (folder / "config.json").write_text(config)
    kind = getattr(transformers, f"ModernBert{twin.head}")
    model = kind(transformers.AutoConfig.from_pretrained(folder)).float()
    model = with_random_weights(model, gain=0.7)
    tied = {"decoder.weight"} if model.config.tie_word_embeddings else set()
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    tensors |= {name: torch.zeros(3) for name in twin.extra}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if twin.steps is not None:
        {"pooled": _pool, "pylate": _project, "splade": _weigh, "scorer": _score}[twin.steps](
            folder, twin.said
        )


def peer_of(folder: Path, verb: str) -> Any:
    """What sentence-transformers makes of a folder."""
    import sentence_transformers

    names = {
        "retrieve": "SentenceTransformer",
        "late-interaction": "MultiVectorEncoder",
        "sparse": "SparseEncoder",
        "rerank": "CrossEncoder",
    }
    return getattr(sentence_transformers, names[verb])(str(folder), device="cpu")


def _dense(widths: tuple[int, ...], **said: Any) -> list[Any]:
    from sentence_transformers.base.modules import Dense

    torch.manual_seed(0)
    pairs = zip((WIDTH, *widths), widths, strict=False)
    same = torch.nn.Identity()
    return [Dense(*pair, bias=False, activation_function=same, **said) for pair in pairs]


def _pool(folder: Path, said: Keys) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    steps: list[Any] = [Transformer(str(folder)), Pooling(WIDTH, said["pooling"])]
    steps += _dense(said.get("dense", ())) + [Normalize()] * said.get("normalize", False)
    told = {key: said[key] for key in ("prompts", "truncate_dim") if key in said}
    SentenceTransformer(modules=steps, device="cpu", **told).save(str(folder))


def _score(folder: Path, _said: Keys) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    same = torch.nn.Identity()
    (dense,) = _dense((WIDTH,))
    dense.activation_function = torch.nn.GELU()
    steps = [
        *(Transformer(str(folder)), Pooling(WIDTH, "mean"), dense, LayerNorm(WIDTH)),
        Dense(WIDTH, 1, activation_function=same, module_output_name="scores"),
    ]
    CrossEncoder(modules=steps, device="cpu", activation_fn=same).save_pretrained(str(folder))


def _weigh(folder: Path, _said: Keys) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    steps = [MLMTransformer(str(folder)), SpladePooling()]
    SparseEncoder(modules=steps, device="cpu").save_pretrained(str(folder))


def _project(folder: Path, said: Keys) -> None:
    """Write the files of PyLate, which needs older versions of the libraries than are here."""
    layers = _dense(said.get("dense", (24,)), use_residual=said.get("use_residual", False))
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, layer in enumerate(layers, 1):
        path = folder / f"{number}_Dense"
        path.mkdir()
        config = {"in_features": layer.in_features, "out_features": layer.out_features}
        config |= {"bias": False, "use_residual": said.get("use_residual", False)}
        config |= {"activation_function": "torch.nn.modules.linear.Identity"}
        (path / "config.json").write_text(json.dumps(config))
        save_file(layer.state_dict(), path / "model.safetensors")
        modules.append({"path": path.name, "type": "pylate.models.Dense.Dense"})
    listed = [{"idx": number, "name": str(number), **each} for number, each in enumerate(modules)]
    told = {
        "__version__": {"sentence_transformers": "4.0.2"},
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_length": 32,
        "document_length": 300,
        "attend_to_expansion_tokens": False,
        **{key: value for key, value in said.items() if key not in ("dense", "use_residual")},
    }
    files = {
        "modules.json": listed,
        "config_sentence_transformers.json": told,
        "sentence_bert_config.json": {"max_seq_length": 299, "do_lower_case": False},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
