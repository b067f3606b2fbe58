"""Models for retrieval of either kind: one vector a text, or one a token."""

from pathlib import Path

from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_folder import is_multi_vector
from modernbert.model.config_file import find_model
from modernbert.model.precision import PrecisionChoice

Retriever = Embedder | MultiVectorEmbedder


def load_retriever(folder_or_hub_id: Path | str, precision: PrecisionChoice = "auto") -> Retriever:
    """Load a model of the kind that its folder says; one vector a text when it says nothing.

    Raises:
        ModelFolderError: no such model, or one that cannot be used.
        TokenizerError: no tokenizer beside it, or one that cannot be used.
        ConfigError: a setting that is not supported, or a precision that cannot be had here.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    if is_multi_vector(folder):
        return MultiVectorEmbedder.from_pretrained(folder, precision=precision)
    return Embedder.from_pretrained(folder, precision=precision)
