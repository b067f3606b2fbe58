"""The public names: which they are, and that each can be had."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import modernbert

ROOMS = [
    module.name
    for module in pkgutil.iter_modules(modernbert.__path__, "modernbert.")
    if module.ispkg
]


def test_the_package_exports_these_names() -> None:
    """A change of this list is a change of the public interface: say so in the CHANGELOG."""
    assert modernbert.__all__ == [
        "ChunkSettings",
        "Classifier",
        "DataCollatorWithPacking",
        "Embedder",
        "EmbeddingTransformer",
        "Encoder",
        "EncoderConfig",
        "FillMask",
        "Fusion",
        "Hit",
        "Index",
        "MaskedLanguageModel",
        "ModernBertClassifier",
        "ModernBertError",
        "ModernBertRegressor",
        "MultiVectorEmbedder",
        "MultiVectorModel",
        "MultiVectorSettings",
        "PackedBatch",
        "QuestionAnswerer",
        "Reranker",
        "SequenceClassifier",
        "SpanClassifier",
        "SparseEmbedder",
        "Tagger",
        "TokenClassifier",
        "Tokenizer",
        "__version__",
        "accelerate",
        "collect_python_corpus",
        "evaluate",
        "export_gguf",
        "export_onnx",
        "export_openvino",
        "export_weights",
        "extend_tokenizer",
        "finetune",
        "load",
        "prepare",
        "pretrain",
        "push_folder",
        "restore",
        "train_tokenizer",
    ]
    assert dir(modernbert) == modernbert.__all__


@pytest.mark.parametrize("name", modernbert.__all__)
def test_every_name_can_be_had(name: str) -> None:
    value = getattr(modernbert, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__ == modernbert._HOMES[name]


def test_type_checkers_see_what_runs() -> None:
    """Names are resolved lazily, so the imports that type checkers read are written apart."""
    tree = ast.parse(Path(modernbert.__file__).read_text(encoding="utf-8"))
    declared = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modernbert.")
        for alias in node.names
    }
    assert declared == modernbert._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'modernbert' has no attribute 'Encode'"):
        _ = modernbert.Encode  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_says_what_it_is_and_exports_what_it_names(name: str) -> None:
    room = importlib.import_module(name)
    assert room.__doc__
    exported = getattr(room, "__all__", [])
    assert len(set(exported)) == len(exported)  # their order is checked by ruff
    assert all(hasattr(room, each) for each in exported)
