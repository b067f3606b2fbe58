"""Twins of published ModernBERTs are fine-tuned by the verb, and what it saves opens elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.published.conftest import TEXTS
from tests.published.twins import Twin, peer_of
from tests.tasks.test_finetune import COLUMNS, rows

import modernbert
from modernbert.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

LOADERS = {
    "classify": "AutoModelForSequenceClassification",
    "regress": "AutoModelForSequenceClassification",
    "tag": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
}


def tuned(twin: Twin, folder: Path, place: Path) -> Path:
    """Two steps of the verb that the twin is for, as the command line takes them."""
    train = place / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows(COLUMNS[twin.verb])))
    options = ["--model", folder, "--train", train, "--output", place / "run"]
    sizes = ["--epochs", 1, "--batch-size", 4, "--max-seqlen", 64, "--seeds", 1]
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in ("finetune", twin.verb, *options, *sizes)])
    assert left.value.code in (None, 0)
    return place / "run" / "model"


def test_it_is_tuned_and_saved(
    folder: Path, twin: Twin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tuned(twin, folder, tmp_path)
    assert str(made) in capsys.readouterr().out
    ours: Any = modernbert.load(made, precision="float32")
    if (loader := LOADERS.get(twin.verb)) is not None:
        assert_transformers_agrees(made, loader, ours)
    elif twin.verb == "rerank":
        pairs = [("a question", text) for text in TEXTS]
        np.testing.assert_allclose(
            ours.scores(pairs), peer_of(made, "rerank").predict(pairs), atol=1e-4
        )
    else:
        expected, got = peer_of(made, twin.verb).encode_query(TEXTS), ours.encode_query(TEXTS)
        if twin.verb == "sparse":
            expected, got = expected.to_dense().numpy(), ours.to_dense(got)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), atol=1e-4)


def assert_transformers_agrees(made: Path, loader: str, ours: Any) -> None:
    import transformers

    theirs = getattr(transformers, loader).from_pretrained(made).eval()
    found = transformers.AutoTokenizer.from_pretrained(made)(TEXTS[0], return_tensors="pt")
    ids = found.input_ids
    assert ids[0].tolist() == ours.tokenizer.encode(TEXTS[0])
    with torch.no_grad():
        outputs = theirs(input_ids=ids)
        logits = ours.model(modernbert.PackedBatch.from_padded(ids))
    expected = (
        torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)[0]
        if "start_logits" in outputs
        else outputs.logits.reshape(logits.shape)
    )
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
