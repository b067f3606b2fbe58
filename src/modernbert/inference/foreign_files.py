"""The files and layers that sentence-transformers and PyLate write beside a model.

    modules.json                         the steps: their classes and their folders
    sentence_bert_config.json            lengths, and what else the transformer is told
    config_sentence_transformers.json    prompts, and how vectors are compared
    1_Pooling/config.json, ...           one for each step

A field of a class is a key that is honoured; a `Literal` is one of which only these values are.
Other keys are refused, but for those that `json_files.IGNORED` lists.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import torch
from annotated_types import Ge, Le
from torch import nn

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.json_files import parse_foreign, read_object, read_settings
from modernbert.kinds import CONFIG_FILE, MODULES_FILE, SETTINGS_FILE, Module
from modernbert.model.multi_vector import DenseActivation, Projection, ProjectionSettings
from modernbert.model.pooling import Normalize, TextPooling, fill_from_folder
from modernbert.model.weights import write_tensors
from modernbert.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TransformerFile:
    """sentence_bert_config.json."""

    max_seq_length: int | None = None
    do_lower_case: bool = False
    transformer_task: Literal["feature-extraction", "fill-mask", "sequence-classification"] = (
        "feature-extraction"
    )
    module_output_name: Literal["token_embeddings", "scores"] = "token_embeddings"


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """config_sentence_transformers.json: what every kind of model has there."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class EmbedderFile(PromptFile):
    """The same of a SentenceTransformer."""

    similarity_fn_name: Literal["cosine", "dot", "euclidean", "manhattan"] = "cosine"
    truncate_dim: int | None = None


@dataclass(frozen=True, kw_only=True)
class RerankerFile(PromptFile):
    """The same of a CrossEncoder."""

    activation_fn: str | None = None


@dataclass(frozen=True, kw_only=True)
class SparseFile(PromptFile):
    """The same of a SparseEncoder."""

    similarity_fn_name: Literal["dot"] = "dot"
    max_active_dims: int | None = None


@dataclass(frozen=True, kw_only=True)
class SpladePoolingFile:
    """config.json of a SpladePooling."""

    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"
    embedding_dimension: int | None = None
    word_embedding_dimension: int | None = None


@dataclass(frozen=True, kw_only=True)
class PoolingFile:
    """config.json of a Pooling, with the keys of all versions."""

    embedding_dimension: int | None = None
    word_embedding_dimension: int | None = None
    include_prompt: bool = True
    pooling_mode: tuple[TextPooling, ...] | None = None
    # In the order in which the vectors are joined.
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    @classmethod
    def unfold(cls, mapping: Mapping[str, Any], _where: str) -> Mapping[str, Any]:
        """Put a single pooling into a list."""
        mode = mapping.get("pooling_mode")
        return {**mapping, "pooling_mode": [mode]} if isinstance(mode, str) else mapping

    @property
    def poolings(self) -> tuple[TextPooling, ...]:
        if self.pooling_mode:
            return self.pooling_mode
        return tuple(mode for key, mode in POOLING_KEYS.items() if getattr(self, key)) or ("mean",)


POOLING_KEYS: Mapping[str, TextPooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How each pooling is called by the versions before 5.4."""

Width = Annotated[int, Ge(1), Le(1 << 20)]
Feature = Literal["sentence_embedding", "token_embeddings", "scores"]


@dataclass(frozen=True, kw_only=True)
class DenseFile(Settings):
    """config.json of a Dense."""

    in_features: Width
    out_features: Width
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    module_input_name: Feature | None = None
    module_output_name: Feature | None = None


@dataclass(frozen=True, kw_only=True)
class LayerNormFile(Settings):
    """config.json of a LayerNorm."""

    dimension: Width


@dataclass(frozen=True, kw_only=True)
class DropoutFile:
    """config.json of a Dropout, which does nothing in inference."""

    dropout: float = 0.2


@dataclass(frozen=True, kw_only=True)
class NormalizeFile:
    """config.json of a Normalize; versions before 6 write none."""

    module_input_name: Feature | None = None
    module_output_name: Feature | None = None


def read_prompt_file(settings_class: type[T], folder: Path) -> T:
    """Read config_sentence_transformers.json; a prompt that is null is an empty one.

    Raises:
        ModelFolderError: The file cannot be used.
    """
    path = folder / SETTINGS_FILE
    content = read_object(path)
    prompts = content.get("prompts")
    if isinstance(prompts, dict):
        content["prompts"] = {name: text or "" for name, text in prompts.items()}
    return parse_foreign(settings_class, content, str(path))


def refuse_steps(folder: Path, modules: Sequence[Module], supported: str) -> ModelFolderError:
    """Make the error about steps that cannot be used, for the caller to raise."""
    kinds = ", ".join(each.kind for each in modules) or "of a plain model"
    return ModelFolderError(
        f"{folder / MODULES_FILE}: the steps {kinds} are not supported; {supported}"
    )


def write_files(folder: Path, modules: Sequence[Module], files: Mapping[str, Any]) -> None:
    """Write modules.json, the folders of the steps, and other files.

    Args:
        folder: The model's folder.
        modules: The steps, in their order.
        files: The content of each file, as JSON values, by its path.

    Raises:
        ModelFolderError: The folder cannot be written.
    """
    listed = [
        {"idx": index, "name": str(index), "path": each.path, "type": each.type}
        for index, each in enumerate(modules)
    ]
    with updated_folder(folder, error=ModelFolderError) as partial:
        for each in modules:
            (partial / each.path).mkdir(exist_ok=True)
        for name, content in {MODULES_FILE: listed, **files}.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (partial / name).write_text(text, encoding="utf-8")


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


def activation_of(name: str, where: object) -> DenseActivation:
    """Return the activation of a class's full name, such as `torch.nn.modules.activation.Tanh`.

    Raises:
        ModelFolderError: It is none that is computed here.
    """
    last: Any = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or last not in get_args(DenseActivation):
        known = ", ".join(get_args(DenseActivation))
        raise ModelFolderError(f"{where}: activation {name} is not supported; {known} of torch are")
    return last  # type: ignore[no-any-return]


def name_of_activation(activation: DenseActivation) -> str:
    """Return the reverse of `activation_of`."""
    module = "linear" if activation == "Identity" else "activation"
    return f"torch.nn.modules.{module}.{activation}"


def written_layer(layer: nn.Module, feature: Feature) -> tuple[str, dict[str, Any]]:
    """Return the kind of a layer's step, and what its config.json says."""
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
        dimension = read_settings(LayerNormFile, path).dimension
        with torch.device("meta"):
            norm = nn.ModuleDict({"norm": nn.LayerNorm(dimension)})
        fill_from_folder(norm, folder)
        return norm["norm"]
    said: DenseFile | NormalizeFile
    said = read_settings(DenseFile, path) if kind == "Dense" else read_settings(NormalizeFile, path)
    if (takes := said.module_input_name or default) != feature:
        raise ModelFolderError(f"{path}: module_input_name: got {takes!r}, expected {feature!r}")
    return _read_dense(said, folder) if isinstance(said, DenseFile) else Normalize()


def _read_dense(said: DenseFile, folder: Path) -> Projection:
    settings = ProjectionSettings(
        in_features=said.in_features,
        out_features=said.out_features,
        bias=said.bias,
        activation=activation_of(said.activation_function, folder / CONFIG_FILE),
        residual=said.use_residual,
    )
    with torch.device("meta"):
        made = Projection(settings)
    fill_from_folder(made, folder)
    return made
