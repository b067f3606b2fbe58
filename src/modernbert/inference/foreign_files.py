"""The files that sentence-transformers and PyLate write beside a model, key by key.

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
from typing import Any, Literal, TypeVar

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.json_files import parse_foreign, read_object
from modernbert.kinds import MODULES_FILE, SETTINGS_FILE, Module
from modernbert.model.pooling import TextPooling

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
        """One pooling may stand without a list around it."""
        mode = mapping.get("pooling_mode")
        return {**mapping, "pooling_mode": [mode]} if isinstance(mode, str) else mapping

    @property
    def poolings(self) -> tuple[TextPooling, ...]:
        """All poolings, in their order."""
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

Feature = Literal["sentence_embedding", "token_embeddings", "scores"]


@dataclass(frozen=True, kw_only=True)
class DenseFile:
    """config.json of a Dense."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    module_input_name: Feature | None = None
    module_output_name: Feature | None = None


@dataclass(frozen=True, kw_only=True)
class LayerNormFile:
    """config.json of a LayerNorm."""

    dimension: int


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
    try:
        with updated_folder(folder) as partial:
            for each in modules:
                (partial / each.path).mkdir(exist_ok=True)
            for name, content in {MODULES_FILE: listed, **files}.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None
