"""`load`: the right object for any folder."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from modernbert.data.shards import ShardFolder
from modernbert.errors import ModelFolderError
from modernbert.hub import find_folder
from modernbert.inference.index import Index
from modernbert.inference.index_files import read_vectors
from modernbert.kinds import MODELS, Kind, ModelKind, kind_of, model_folder, model_kind
from modernbert.model.precision import PrecisionChoice
from modernbert.reading import user_path
from modernbert.tokenizer.tokenizer import Tokenizer

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
        For a model the object that uses it, of the class that `kinds.MODELS` names, such as an
        `Embedder`; a `Tokenizer`, an `Index`, the `ShardFolder` of token shards, or an array
        (rows, dim) for a file of vectors.

    Raises:
        InputError: A path at which nothing is, or nothing that is known.
        ModelFolderError: A kind of folder that there is nothing to do with, or a broken one.
        ModernBertError: As `from_pretrained` of the class.
    """
    path = user_path(folder_or_hub_id)
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
    return class_for(model_kind(path)).from_pretrained(path, precision=precision)


def class_for(kind: ModelKind) -> Any:
    """The class that uses a kind of model, imported now."""
    module, _, name = MODELS[kind].used_as.partition(":")
    return getattr(import_module(f"modernbert.inference.{module}"), name)
