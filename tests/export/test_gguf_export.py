"""GGUF files hold what llama.cpp reads, and llama.cpp computes the same where it is installed."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.conftest import Folder

from modernbert.errors import ConfigError, ExportError
from modernbert.export import gguf_export
from modernbert.export.gguf_export import export_gguf
from modernbert.export.source import open_source

SAMPLE = [f"the square  of number {i} is {i * i}" for i in range(9)]


def read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys and tensors, by the library that llama.cpp's converters use."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def test_an_embedder(model_folder: Folder, tmp_path: Path) -> None:
    report = export_gguf(model_folder("embedder"), tmp_path, precision="float32", sample=SAMPLE)
    keys, tensors = read(tmp_path / "model-f32.gguf")
    assert report.file == Path("model-f32.gguf") and report.num_tensors == len(tensors)
    expected = {
        "general.architecture": "modern-bert",
        "modern-bert.block_count": 2,
        "modern-bert.embedding_length": 64,
        "modern-bert.feed_forward_length": 64,
        "modern-bert.attention.head_count": 2,
        "modern-bert.attention.causal": False,
        "modern-bert.attention.sliding_window": 128,
        "modern-bert.attention.sliding_window_pattern": 2,
        "modern-bert.pooling_type": 1,
        "modern-bert.hidden_activation": "gelu",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "modern-bert",
        "tokenizer.ggml.add_sep_token": False,
    }
    assert {name: keys[name] for name in expected} == expected
    source = open_source(model_folder("embedder"))
    assert keys["tokenizer.ggml.bos_token_id"] == source.tokenizer.cls_token_id
    assert keys["tokenizer.ggml.tokens"][source.tokenizer.mask_token_id] == "[MASK]"
    assert len(keys["tokenizer.ggml.tokens"]) == source.model.config.vocab_size
    layer = source.model.layers[1]
    assert np.array_equal(tensors["blk.1.attn_qkv.weight"].data, layer.attn.Wqkv.weight.detach())
    assert "blk.0.attn_norm.weight" not in tensors and "blk.1.attn_norm.weight" in tensors


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "q8_0"])
def test_precisions(model_folder: Folder, tmp_path: Path, precision: str) -> None:
    report: Any = export_gguf(
        model_folder("classifier"), tmp_path, precision=precision, sample=SAMPLE
    )
    keys, tensors = read(tmp_path / report.file)
    assert keys["modern-bert.classifier.output_labels"] == ["bad", "good", "fair"]
    assert keys["modern-bert.pooling_type"] == 4
    assert keys["modern-bert.classifier.pooling_type"] == 1
    kinds = {name: each.tensor_type.name for name, each in tensors.items()}
    short = {"float16": "F16", "bfloat16": "BF16"}.get(precision, "Q8_0")
    assert kinds["token_embd.weight"] == kinds["cls.output.weight"] == short
    assert kinds["output_norm.weight"] == kinds["cls.output.bias"] == "F32"


def test_layers_in_another_pattern(model_folder: Folder) -> None:
    config = open_source(model_folder("embedder")).model.config
    kinds = ("global", "global", "local")
    assert gguf_export._pattern(replace(config, layer_kinds=kinds)) == [False, False, True]
    kinds = ("global", "local", "local", "global")
    assert gguf_export._pattern(replace(config, layer_kinds=kinds)) == 3
    assert gguf_export._pattern(replace(config, layer_kinds=("global",) * 3)) == 1


def test_what_llama_cpp_cannot_represent(model_folder: Folder, tmp_path: Path) -> None:
    for kind in ("masked-lm", "tagger", "reader"):
        with pytest.raises(ExportError, match="cannot represent it: it has outputs for tokens"):
            export_gguf(model_folder(kind), tmp_path / "out")
    source = open_source(model_folder("embedder"))
    for change, message in (
        (replace(source, pooling=("mean", "cls")), r"its pooling is mean\+cls"),
        (replace(source, tokenizer=source.tokenizer.lowercased()), "changes texts first"),
    ):
        with pytest.raises(ExportError, match=message):
            gguf_export._require_representable(change)
    with pytest.raises(ConfigError, match="precision: got 'q2_k'"):
        export_gguf(model_folder("embedder"), tmp_path / "out", precision="q2_k")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_file_that_says_something_else_is_not_kept(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf_export._add_tensor
    monkeypatch.setattr(
        gguf_export, "_add_tensor", lambda writer, name, tensor, _: add(writer, name, -tensor, _)
    )
    with pytest.raises(ExportError, match="was not written as it is"):
        export_gguf(model_folder("embedder"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("kind", ["embedder", "classifier", "reranker"])
@pytest.mark.parametrize("precision", ["float32", "float16", "q8_0"])
def test_llama_cpp_computes_the_same(
    model_folder: Folder, tmp_path: Path, kind: str, precision: Any
) -> None:
    """At lengths around the window's edges, and past them."""
    report = export_gguf(model_folder(kind), tmp_path, precision=precision, sample=SAMPLE)
    assert report.quality is not None and report.quality.least > 0.99
    assert report.same_tokens == len(SAMPLE)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_vectors_by_llama_cpp(model_folder: Folder, tmp_path: Path) -> None:
    """As its own users call it: the pooling comes from the file."""
    import llama_cpp

    from modernbert import Embedder

    export_gguf(model_folder("embedder"), tmp_path, precision="float32", sample=SAMPLE)
    llama = llama_cpp.Llama(str(tmp_path / "model-f32.gguf"), embedding=True, verbose=False)
    theirs = torch.tensor(llama.embed(SAMPLE[0], normalize=True))
    ours = torch.tensor(Embedder.from_pretrained(model_folder("embedder")).encode(SAMPLE[0]))
    assert torch.cosine_similarity(theirs, ours, dim=0) > 0.9999
