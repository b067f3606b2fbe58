"""The layers of a folder of sentence-transformers, behind pooling or behind each token's vector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torch import nn

from modernbert.errors import ModelFolderError
from modernbert.inference.foreign_files import (
    DenseFile,
    DropoutFile,
    Feature,
    LayerNormFile,
    NormalizeFile,
)
from modernbert.json_files import read_settings
from modernbert.kinds import CONFIG_FILE, Module
from modernbert.model.multi_vector import Activation, Projection, ProjectionSettings
from modernbert.model.vector_layers import Normalize, fill_from_folder
from modernbert.model.weights import write_tensors

LAYERS = ("Dense", "LayerNorm", "Dropout", "Normalize")
"""The kinds of steps that `read_layers` takes."""


def read_layers(
    folder: Path,
    modules: Sequence[Module],
    feature: Feature,
    *,
    default: Feature = "sentence_embedding",
) -> list[nn.Module]:
    """Read the layers of some steps, in their order; a Dropout is none in inference.

    Args:
        folder: The model's folder.
        modules: Steps of the kinds that `LAYERS` names.
        feature: What the layers take: the vector of a text, or those of its tokens.
        default: What a layer takes that does not say so.

    Raises:
        ModelFolderError: A file that cannot be used, or layers that take something else.
    """
    found = [_read_layer(folder / each.path, each.kind, feature, default) for each in modules]
    return [layer for layer in found if layer is not None]


def activation_of(name: str, where: object) -> Activation:
    """The activation of a class's full name, such as `torch.nn.modules.activation.Tanh`.

    Raises:
        ModelFolderError: It is none that is computed here.
    """
    last: Any = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or last not in get_args(Activation):
        known = ", ".join(get_args(Activation))
        raise ModelFolderError(f"{where}: activation {name} is not supported; {known} of torch are")
    return last  # type: ignore[no-any-return]


def name_of_activation(activation: Activation) -> str:
    """The reverse of `activation_of`."""
    module = "linear" if activation == "Identity" else "activation"
    return f"torch.nn.modules.{module}.{activation}"


def written_layer(layer: nn.Module, feature: Feature) -> tuple[str, dict[str, Any]]:
    """The kind of a layer's step, and what its config.json says."""
    names = {"module_input_name": feature, "module_output_name": feature}
    if isinstance(layer, Projection):
        settings = layer.settings
        written = {
            "in_features": settings.in_features,
            "out_features": settings.out_features,
            "bias": settings.bias,
            "activation_function": name_of_activation(settings.activation),
            **names,
        }
        return "Dense", {**written, "use_residual": True} if settings.residual else written
    if isinstance(layer, nn.LayerNorm):
        return "LayerNorm", {"dimension": layer.normalized_shape[0]}
    return "Normalize", {} if feature == "sentence_embedding" else names


def write_weights(layer: nn.Module, folder: Path) -> None:
    """Write the weights of a layer that has some.

    Raises:
        OSError: They cannot be written.
    """
    prefix = "norm." if isinstance(layer, nn.LayerNorm) else ""
    tensors = {prefix + name: value for name, value in layer.named_parameters()}
    if tensors:
        folder.mkdir(exist_ok=True)
        write_tensors(folder, tensors)


def _read_layer(folder: Path, kind: str, feature: Feature, default: Feature) -> nn.Module | None:
    path = folder / CONFIG_FILE
    if kind == "Dropout":
        read_settings(DropoutFile, path)
        return None
    if kind == "LayerNorm":
        norm = nn.ModuleDict({"norm": nn.LayerNorm(read_settings(LayerNormFile, path).dimension)})
        fill_from_folder(norm, folder)
        return norm["norm"]
    said: DenseFile | NormalizeFile
    said = read_settings(DenseFile, path) if kind == "Dense" else read_settings(NormalizeFile, path)
    if (takes := said.module_input_name or default) != feature:
        raise ModelFolderError(f"{path}: module_input_name: got {takes!r}, expected {feature!r}")
    return _read_dense(said, folder) if isinstance(said, DenseFile) else Normalize()


def _read_dense(said: DenseFile, folder: Path) -> Projection:
    made = Projection(
        ProjectionSettings(
            in_features=said.in_features,
            out_features=said.out_features,
            bias=said.bias,
            activation=activation_of(said.activation_function, folder / CONFIG_FILE),
            residual=said.use_residual,
        )
    )
    fill_from_folder(made, folder)
    return made
