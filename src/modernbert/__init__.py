"""ModernBERT from a raw corpus to a trained encoder, unpadded on every device."""

import importlib
from typing import TYPE_CHECKING, Any

from modernbert import threads

if TYPE_CHECKING:
    from modernbert.api import (
        evaluate,
        extend_tokenizer,
        finetune,
        prepare,
        pretrain,
        train_tokenizer,
    )
    from modernbert.batch import PackedBatch
    from modernbert.data.python_corpus import collect_python_corpus
    from modernbert.errors import ModernBertError
    from modernbert.export.gguf_export import export_gguf
    from modernbert.export.narrow_weights import export_weights
    from modernbert.export.onnx_export import export_onnx
    from modernbert.export.openvino_export import export_openvino
    from modernbert.hub import push_folder
    from modernbert.inference.chunks import ChunkSettings
    from modernbert.inference.classifier import Classifier
    from modernbert.inference.embedder import Embedder
    from modernbert.inference.fill_mask import FillMask
    from modernbert.inference.index import Hit, Index
    from modernbert.inference.loading import load
    from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
    from modernbert.inference.multi_vector_inputs import MultiVectorSettings
    from modernbert.inference.question_answerer import QuestionAnswerer
    from modernbert.inference.reranker import Reranker
    from modernbert.inference.similarity import Fusion
    from modernbert.inference.sparse_embedder import SparseEmbedder
    from modernbert.inference.tagger import Tagger
    from modernbert.interop.accelerate import accelerate, restore
    from modernbert.interop.batches import DataCollatorWithPacking
    from modernbert.model.config import EncoderConfig
    from modernbert.model.encoder import Encoder
    from modernbert.model.heads import (
        MaskedLanguageModel,
        SequenceClassifier,
        SpanClassifier,
        TokenClassifier,
    )
    from modernbert.model.multi_vector import MultiVectorModel
    from modernbert.sklearn import EmbeddingTransformer, ModernBertClassifier, ModernBertRegressor
    from modernbert.tokenizer.tokenizer import Tokenizer

__version__ = "0.1.0"

threads.wait_briefly()
threads.compute_in_children()

__all__ = [
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

# Names are imported when they are first used, so that `import modernbert` and the command line's
# --help do not wait for torch.
_HOMES = {
    "ChunkSettings": "modernbert.inference.chunks",
    "Classifier": "modernbert.inference.classifier",
    "DataCollatorWithPacking": "modernbert.interop.batches",
    "Embedder": "modernbert.inference.embedder",
    "EmbeddingTransformer": "modernbert.sklearn",
    "Encoder": "modernbert.model.encoder",
    "EncoderConfig": "modernbert.model.config",
    "FillMask": "modernbert.inference.fill_mask",
    "Fusion": "modernbert.inference.similarity",
    "Hit": "modernbert.inference.index",
    "Index": "modernbert.inference.index",
    "MaskedLanguageModel": "modernbert.model.heads",
    "ModernBertClassifier": "modernbert.sklearn",
    "ModernBertError": "modernbert.errors",
    "ModernBertRegressor": "modernbert.sklearn",
    "MultiVectorEmbedder": "modernbert.inference.multi_vector_embedder",
    "MultiVectorModel": "modernbert.model.multi_vector",
    "MultiVectorSettings": "modernbert.inference.multi_vector_inputs",
    "PackedBatch": "modernbert.batch",
    "QuestionAnswerer": "modernbert.inference.question_answerer",
    "Reranker": "modernbert.inference.reranker",
    "SequenceClassifier": "modernbert.model.heads",
    "SpanClassifier": "modernbert.model.heads",
    "SparseEmbedder": "modernbert.inference.sparse_embedder",
    "Tagger": "modernbert.inference.tagger",
    "TokenClassifier": "modernbert.model.heads",
    "Tokenizer": "modernbert.tokenizer.tokenizer",
    "accelerate": "modernbert.interop.accelerate",
    "collect_python_corpus": "modernbert.data.python_corpus",
    "evaluate": "modernbert.api",
    "export_gguf": "modernbert.export.gguf_export",
    "export_onnx": "modernbert.export.onnx_export",
    "export_openvino": "modernbert.export.openvino_export",
    "export_weights": "modernbert.export.narrow_weights",
    "extend_tokenizer": "modernbert.api",
    "finetune": "modernbert.api",
    "load": "modernbert.inference.loading",
    "prepare": "modernbert.api",
    "pretrain": "modernbert.api",
    "push_folder": "modernbert.hub",
    "restore": "modernbert.interop.accelerate",
    "train_tokenizer": "modernbert.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
