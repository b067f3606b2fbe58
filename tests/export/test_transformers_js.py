"""transformers.js computes with an ONNX folder of ours what we do, in Node.

It is skipped unless MODERNBERT_NODE_MODULES names a folder `node_modules` that holds
`@huggingface/transformers`, as `npm install @huggingface/transformers` makes it.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.conftest import Folder

from modernbert import PackedBatch
from modernbert.export.onnx_export import export_onnx
from modernbert.export.source import open_source

MODULES = os.environ.get("MODERNBERT_NODE_MODULES")
pytestmark = [
    pytest.mark.skipif(MODULES is None, reason="MODERNBERT_NODE_MODULES is not set"),
    pytest.mark.filterwarnings("default"),
]

TEXT = "the square  of number 7 is 49, not less."
SCRIPT = """
import { AutoTokenizer, env, %(model)s } from '@huggingface/transformers';
env.allowRemoteModels = false;
env.localModelPath = '%(folder)s/';
const tokenizer = await AutoTokenizer.from_pretrained('out');
const inputs = await tokenizer(%(text)s);
const model = await %(model)s.from_pretrained('out', { dtype: '%(dtype)s' });
const output = await model(inputs);
const values = output.logits ?? output.last_hidden_state;
console.log(JSON.stringify({
    kind: model.constructor.name,
    ids: Array.from(inputs.input_ids.data, Number),
    values: Array.from(values.data),
}));
"""
MODELS = {
    "embedder": "AutoModel",
    "masked-lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "tagger": "AutoModelForTokenClassification",
}


def run_node(folder: Path, model: str, dtype: str) -> Any:
    assert MODULES is not None
    (folder / "node_modules").unlink(missing_ok=True)
    (folder / "node_modules").symlink_to(MODULES)
    script = SCRIPT % {"model": model, "folder": folder, "dtype": dtype, "text": json.dumps(TEXT)}
    (folder / "run.mjs").write_text(script)
    done = subprocess.run(
        ["node", "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_outputs(model_folder: Folder, tmp_path: Path, kind: str) -> None:
    export_onnx(model_folder(kind), tmp_path / "out", int8=True, float16=True, sample=[TEXT])
    source = open_source(model_folder(kind))
    ids = source.tokenizer.encode(TEXT)
    with torch.no_grad():
        expected = source.model(PackedBatch.from_sequences([ids])).flatten()
    for dtype, tolerance in (("fp32", 1e-4), ("fp16", 2e-2), ("q8", 0.2)):
        found = run_node(tmp_path, MODELS[kind], dtype)
        assert found["kind"] == source.kind and found["ids"] == list(ids)
        difference = (torch.tensor(found["values"]) - expected).abs().max()
        assert difference <= tolerance * max(1.0, float(expected.abs().max())), dtype
