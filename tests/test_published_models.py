"""Tiny twins of published ModernBERTs: opened, used, accelerated, exported, served and tuned.

Each twin has the layout of a published folder: its keys that differ, small sizes, and a vocabulary
of its kind that is trained here. docs/models.md lists the models.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.model.examples import largest_difference, with_random_weights
from tests.tokenizer.test_roles import (
    Backend,
    gemma_like,
    hebrew_like,
    japanese_like,
    llm_jp_like,
    roberta_like,
)

from modernbert import Embedder, FillMask, PackedBatch, Reranker, Tokenizer, accelerate
from modernbert.errors import ConfigError
from modernbert.export.padded_model import padded_hidden
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, MaskedLanguageModel, SequenceClassifier
from modernbert.serving.models import load
from modernbert.tasks.tuning.first_model import first_model
from modernbert.tokenizer.train import train

WITHIN = 5e-5
TEXTS = ["The capital of France is Paris.", "naïve café 東京 שלום 😀, it's 1,000.5!", "a"]
ROOT = Path(__file__).resolve().parents[1]

Keys = Mapping[str, Any]


def bert_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """ModernBERT's own kind of vocabulary."""
    tokenizer = train(texts, vocab_size=448)
    return Backend.from_str(json.dumps(tokenizer.definition)), dict(tokenizer.roles)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What is peculiar about a published model.

    config: Keys of its config.json; sizes are small here.
    head: The class of transformers behind `ModernBert`.
    extra: Tensors that its file has besides the model's.
    """

    tokenizer: Callable[[list[str]], tuple[Backend, dict[str, str]]] = bert_like
    config: Keys = field(default_factory=dict)
    head: str = "ForMaskedLM"
    extra: tuple[str, ...] = ()


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

TWINS: dict[str, Twin] = {
    "answerdotai/ModernBERT-base": Twin(config={**OLD, "reference_compile": True}),
    "answerdotai/ModernBERT-large": Twin(config={**OLD, "sparse_prediction": True}),
    "jhu-clsp/ettin-encoder-17m": Twin(config={**RAISED, "is_causal": False, "causal_mask": False}),
    "jhu-clsp/mmBERT-base": Twin(
        tokenizer=gemma_like, config={**RAISED, "position_embedding_type": "sans_pos"}
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
    "sbintuitions/modernbert-ja-130m": Twin(tokenizer=japanese_like, config=OLD),
    "llm-jp/llm-jp-modernbert-base": Twin(tokenizer=llm_jp_like, config=OLD),
    "HebArabNlpProject/HebrewModernBERT": Twin(tokenizer=hebrew_like, config=OLD),
    "a RoBERTa-like vocabulary": Twin(tokenizer=roberta_like, config=OLD),
    "thomas-sounack/BioClinical-ModernBERT-base": Twin(config={**OLD, "transformers_version": "4"}),
    "Simonlee711/Clinical_ModernBERT": Twin(config={**OLD, "tie_word_embeddings": True}),
    "LSX-UniWue/ModernGBERT_134M": Twin(
        config={**OLD, "bos_token_id": None, "eos_token_id": None}, extra=("loss_function.weight",)
    ),
    "BSC-LT/MrBERT-es": Twin(tokenizer=roberta_like, config={**RAISED, "local_attention": 16}),
    "answerdotai/ModernBERT-base, saved by transformers 5": Twin(config=FIVE),
    "ibm-granite/granite-embedding-english-r2": Twin(
        config={**OLD, "global_rope_theta": 80_000.0, "classifier_pooling": "cls"}, head="Model"
    ),
    "ibm-granite/granite-embedding-97m-multilingual-r2": Twin(
        tokenizer=roberta_like,
        config={**OLD, "hidden_activation": "silu", "max_position_embeddings": 32_768},
        head="Model",
        extra=("rotary_emb.full_attention_inv_freq",),
    ),
    "Alibaba-NLP/gte-modernbert-base": Twin(config=OLD, head="Model"),
    "nomic-ai/modernbert-embed-base": Twin(config={**OLD, "max_length": 512}, head="Model"),
    "cl-nagoya/ruri-v3-130m": Twin(tokenizer=japanese_like, config=OLD, head="Model"),
    "Alibaba-NLP/gte-reranker-modernbert-base": Twin(
        config={**OLD, **ONE_LABEL, "sentence_transformers": CROSS}, head=CLASSES
    ),
    "tomaarsen/reranker-ModernBERT-base-gooaq-bce": Twin(
        config={**FIVE, **ONE_LABEL, "dtype": "float32", "sentence_transformers": CROSS},
        head=CLASSES,
    ),
    "cl-nagoya/ruri-v3-reranker-310m": Twin(
        tokenizer=japanese_like,
        config={**OLD, **ONE_LABEL, "sentence_transformers": CROSS},
        head=CLASSES,
    ),
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
        "hidden_size": 32,
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


@pytest.fixture(scope="module")
def texts() -> list[str]:
    sources = sorted((ROOT / "src" / "modernbert").glob("*.py"))[:8]
    return [*(path.read_text(encoding="utf-8") for path in sources), *TEXTS] * 2


@pytest.fixture(scope="module", params=TWINS)
def folder(
    request: pytest.FixtureRequest, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a twin as it would be published: its weights are transformers' own."""
    transformers = pytest.importorskip("transformers")
    twin, made = TWINS[request.param], tmp_path_factory.mktemp("twin")
    backend, roles = twin.tokenizer(texts)
    backend.save(str(made / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **roles}
    (made / "tokenizer_config.json").write_text(json.dumps(said))
    config = json.dumps(published_keys(twin, Tokenizer.from_pretrained(made)))
    (made / "config.json").write_text(config)
    kind = getattr(transformers, f"ModernBert{twin.head}")
    model = kind(transformers.AutoConfig.from_pretrained(made)).float()
    model = with_random_weights(model, gain=0.7)
    tied = {"decoder.weight"}
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    tensors |= {name: torch.zeros(3) for name in twin.extra}
    save_file(tensors, made / "model.safetensors", {"format": "pt"})
    return made


@pytest.fixture
def theirs(folder: Path) -> Any:
    """What transformers makes of the folder."""
    transformers = pytest.importorskip("transformers")
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = getattr(transformers, name)
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def outputs_of(model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden states, and what the head gives or these again."""
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    hidden = found.hidden_states[-1]
    return hidden, getattr(found, "logits", hidden)


@pytest.mark.filterwarnings("ignore")
def test_it_opens_and_computes_the_same(folder: Path, theirs: Any) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer, foreign = (
        Tokenizer.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    rows = tokenizer.encode_batch(TEXTS)
    assert rows == [foreign(text).input_ids for text in TEXTS]
    batch = PackedBatch.from_sequences(rows)
    ids, mask = batch.to_padded(batch.token_ids), batch.to_padded(torch.ones(batch.total_tokens))
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    hidden, logits = outputs_of(theirs, inputs)
    present = mask.bool()
    encoder = Encoder.from_pretrained(folder)
    with torch.no_grad():
        assert largest_difference(encoder(batch), hidden[present]) < WITHIN
        padded = padded_hidden(encoder, ids, mask.long())
        assert largest_difference(padded[present], hidden[present]) < WITHIN
    fast = outputs_of(accelerate(theirs), inputs)
    assert largest_difference(fast[0][present], hidden[present]) < WITHIN
    if hasattr(theirs, "decoder"):
        with torch.no_grad():
            own = MaskedLanguageModel.from_pretrained(folder)(batch)
        assert largest_difference(own, logits[present]) < WITHIN
    if hasattr(theirs, "classifier"):
        with torch.no_grad():
            own = SequenceClassifier.from_pretrained(folder)(batch)
        assert largest_difference(own, logits) < WITHIN


@pytest.mark.filterwarnings("ignore")
def test_it_is_used_and_served(folder: Path, theirs: Any) -> None:
    served = load(folder, precision="float32", name="twin")
    if served.can([FillMask]):
        filler = served.part(FillMask)
        text = f"The {filler.tokenizer.mask_token} of France"
        ((found, *_),) = filler(text, top_k=3)
        ids = torch.tensor([filler.tokenizer.encode(text)])
        row = ids[0].tolist().index(filler.tokenizer.mask_token_id)
        logits = outputs_of(theirs, {"input_ids": ids})[1][0, row]
        best = logits[: filler.tokenizer.vocab_size].argmax()
        assert found.token_id == int(best)
    elif served.can([Reranker]):
        reranker, tokenizer = served.part(Reranker), served.tokenizer
        scores = list(reranker.scores([("a question", text) for text in TEXTS]))
        ids = [torch.tensor([tokenizer.encode("a question", text)]) for text in TEXTS]
        logits = torch.cat([outputs_of(theirs, {"input_ids": each})[1][:, 0] for each in ids])
        assert largest_difference(torch.as_tensor(scores), logits.sigmoid()) < WITHIN
    elif served.can([Embedder]):
        vectors = torch.from_numpy(served.part(Embedder).encode(TEXTS))
        assert vectors.shape == (3, 32) and bool(vectors.isfinite().all())
    else:
        assert served.kind == "classifier"


@pytest.mark.filterwarnings("ignore")
def test_it_is_tuned_and_saved(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.from_pretrained(folder)
    settings = ClassifierSettings(labels=("no", "yes", "maybe"), pooling="mean")
    model = first_model(SequenceClassifier, settings, str(folder), seed=0)
    batch = PackedBatch.from_sequences(tokenizer.encode_batch(TEXTS))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        torch.nn.functional.cross_entropy(model(batch), torch.arange(3)).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    foreign = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = foreign(input_ids=ids.input_ids).logits
        found = SequenceClassifier.from_pretrained(tmp_path)(PackedBatch.from_padded(ids.input_ids))
    assert largest_difference(found, expected) < WITHIN


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_type": "modernbert-decoder"}, "a causal ModernBERT decoder"),
        ({"model_type": "modernvbert"}, "ModernVBERT, which reads images too"),
        ({"model_type": "modernbert", "is_causal": True}, "is_causal: a causal model"),
        ({"model_type": "modernbert", "is_decoder": True}, "is_decoder: a causal model"),
    ],
)
def test_siblings_are_refused_by_name(tmp_path: Path, keys: Keys, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(ConfigError, match=said):
        Encoder.from_pretrained(tmp_path)


def test_the_document_lists_them() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in TWINS if "/" in name and name.split(",")[0] not in page] == []
