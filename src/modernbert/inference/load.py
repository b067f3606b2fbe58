"""`load`: the right object for any folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert.data.shards import ShardFolder
from modernbert.errors import ModelFolderError
from modernbert.hub import find_folder
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.index import Index
from modernbert.inference.index_files import read_vectors
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.question_answerer import QuestionAnswerer
from modernbert.inference.reranker import Reranker
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.inference.tagger import Tagger
from modernbert.kinds import Kind, ModelKind, kind_of, model_folder, model_kind
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

MODELS: dict[ModelKind, Any] = {
    "encoder": Embedder,
    "embedder": Embedder,
    "multi_vector": MultiVectorEmbedder,
    "sparse": SparseEmbedder,
    "masked_lm": FillMask,
    "classifier": Classifier,
    "reranker": Reranker,
    "tagger": Tagger,
    "answerer": QuestionAnswerer,
}
"""The class that uses each kind of model."""

_OTHERS: dict[Kind, Callable[[Path], Any]] = {
    "tokenizer": Tokenizer.from_pretrained,
    "shards": ShardFolder.open,
    "index": Index.open,
    "vectors": read_vectors,
}


def load(folder_or_hub_id: Path | str, *, precision: PrecisionChoice = "auto") -> Any:
    """Load a folder as what it is.

    Args:
        folder_or_hub_id: A folder here, or the id of a model on the hub. That of a run stands for
            its model.
        precision: What a model computes in; the others take none.

    Returns:
        A `FillMask`, `Embedder`, `MultiVectorEmbedder`, `SparseEmbedder`, `Classifier`, `Reranker`,
        `Tagger` or `QuestionAnswerer` for a model; a `Tokenizer`, an `Index`, the `ShardFolder` of
        token shards, or an array (rows, dim) for a file of vectors.

    Raises:
        InputError: A path at which nothing is, or nothing that is known.
        ModelFolderError: A kind of folder that there is nothing to do with, or a broken one.
        ModernBertError: As `from_pretrained` of the class.
    """
    path = Path(folder_or_hub_id).expanduser()
    if not path.exists():
        path = find_folder(
            folder_or_hub_id,
            patterns=["*.json", "*.safetensors"],
            content="a model",
            error=ModelFolderError,
        )
    if (other := _OTHERS.get(kind_of(path))) is not None:
        return other(path)
    path = model_folder(path)
    return MODELS[model_kind(path)].from_pretrained(path, precision=precision)
