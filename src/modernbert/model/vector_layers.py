"""Layers behind the vector of a text or of a token, as sentence-transformers has them."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from modernbert.errors import ModelFolderError
from modernbert.model.weights import read_headers, read_tensors


class Normalize(nn.Module):
    """Vectors of length 1; zeros stay zeros."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(rows, width) to the same."""
        return functional.normalize(vectors, dim=-1)


def fill_from_folder(layer: nn.Module, folder: Path) -> None:
    """Give a layer the weights of a folder that holds just these.

    Raises:
        ModelFolderError: The weights cannot be read, or are those of another layer.
    """
    expected = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    headers = {header.name: header for header in read_headers(folder)}
    found = {name: header.shape for name, header in headers.items()}
    if found != expected:
        raise ModelFolderError(f"{folder}: holds the tensors {found}, expected {expected}")
    layer.load_state_dict(read_tensors(headers))
