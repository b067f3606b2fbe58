"""Twins of published ModernBERTs compute what transformers and sentence-transformers do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.examples import largest_difference
from tests.published.conftest import ROOT, TEXTS
from tests.published.twins import TWINS, Keys, Twin, peer_of

from modernbert import Encoder, PackedBatch, Tokenizer, accelerate, load
from modernbert.errors import ConfigError
from modernbert.export.source import padded_hidden
from modernbert.model.heads import (
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)

WITHIN = 5e-5
HEADS = {
    "ForMaskedLM": MaskedLanguageModel,
    "ForSequenceClassification": SequenceClassifier,
    "ForTokenClassification": TokenClassifier,
    "ForQuestionAnswering": SpanClassifier,
}


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
    if "start_logits" in found:
        return hidden, torch.stack([found.start_logits, found.end_logits], dim=-1)
    return hidden, getattr(found, "logits", hidden)


@pytest.mark.filterwarnings("ignore")
def test_it_opens_and_computes_the_same(folder: Path, twin: Twin, theirs: Any) -> None:
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
    if (kind := HEADS.get(twin.head)) is not None:
        with torch.no_grad():
            own = kind.from_pretrained(folder)(batch)
        of_texts = twin.head == "ForSequenceClassification"
        assert largest_difference(own, logits if of_texts else logits[present]) < WITHIN


@pytest.mark.filterwarnings("ignore")
def test_steps_compute_the_same(folder: Path, twin: Twin) -> None:
    if twin.steps is None and (twin.verb != "rerank" or twin.head == "ForMaskedLM"):
        pytest.skip("no folder of sentence-transformers")
    ours = load(folder, precision="float32")
    if twin.steps == "pylate":  # which takes it for a ColBERT also where no file says so
        told = folder / "config_sentence_transformers.json"
        told.write_text(json.dumps({**json.loads(told.read_text()), "model_type": "ColBERT"}))
    theirs = peer_of(folder, twin.verb)
    if twin.verb == "rerank":
        pairs = [("a question", text) for text in TEXTS]
        expected = torch.as_tensor(theirs.predict(pairs))
        assert largest_difference(torch.from_numpy(ours.scores(pairs)), expected) < WITHIN
        return
    for side in ("encode_query", "encode_document"):
        expected, got = getattr(theirs, side)(TEXTS), getattr(ours, side)(TEXTS)
        if twin.verb == "sparse":
            expected, got = expected.to_dense().numpy(), ours.to_dense(got)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), atol=WITHIN)


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
