"""A model of one vector a token in a folder, as sentence-transformers' MultiVectorEncoder has it.

The files of the encoder and its tokenizer, those of `modules_folder`, and

1_Dense/              a projection, its config and its weights; there may be several
2_MultiVectorMask/    which tokens are left out
3_Normalize/          vectors of length 1

Folders of PyLate before it took over that format are read too.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.foreign_files import refuse_steps, write_files
from modernbert.inference.multi_vector_settings import MultiVectorSettings, QueryExpansion
from modernbert.json_files import read_object
from modernbert.kinds import (
    CONFIG_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    Module,
    model_kind,
    read_modules,
)
from modernbert.model.multi_vector import Projection, ProjectionSettings
from modernbert.model.weights import read_headers, read_tensors, write_tensors

_SUPPORTED = "Transformer, one Dense or more, and then MultiVectorMask and Normalize, or not, are"
_PACKAGE = "sentence_transformers"
_TYPES = {
    "Transformer": f"{_PACKAGE}.base.modules.transformer.Transformer",
    "Dense": f"{_PACKAGE}.base.modules.dense.Dense",
    "MultiVectorMask": (
        f"{_PACKAGE}.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
    ),
    "Normalize": f"{_PACKAGE}.base.modules.normalize.Normalize",
}


@dataclass(frozen=True)
class MultiVectorFolder:
    """What a folder holds: where the encoder is, the projections, and how they are used."""

    encoder: Path
    projections: list[Projection]
    settings: MultiVectorSettings


def is_multi_vector(folder: Path) -> bool:
    """Whether a model's folder says that it gives one vector a token.

    Raises:
        ModelFolderError: a file that cannot be read.
    """
    return model_kind(folder) == "multi_vector"


def read_folder(folder: Path) -> MultiVectorFolder:
    """Read what a model's folder says, and its projections.

    Raises:
        ModelFolderError: a file that cannot be read, a folder of another kind of model, or steps
            that are not supported.
        ConfigError: an activation, or another setting, that is not supported.
    """
    modules = read_modules(folder)
    if not is_multi_vector(folder):
        raise ModelFolderError(
            f"{folder}: is no multi-vector model: {SETTINGS_FILE} does not say so; train one with "
            "`modernbert finetune late-interaction`, or take Embedder for one vector a text"
        )
    dense = [each for each in modules if each.kind == "Dense"]
    rest = [each.kind for each in modules if each.kind != "Dense"]
    usual = ["Transformer", "MultiVectorMask", "Normalize"]
    if not dense or rest[:1] != usual[:1] or rest != [each for each in usual if each in rest]:
        raise refuse_steps(folder, modules, _SUPPORTED)
    projections = [_read_projection(folder / each.path) for each in dense]
    said = read_object(folder / SETTINGS_FILE)
    by_kind = {each.kind: folder / each.path for each in modules}
    told = read_object(by_kind["Transformer"] / TRANSFORMER_FILE)
    old = said.get("model_type") == "ColBERT"
    settings = MultiVectorSettings(
        prompts=_prompts(said),
        max_seqlen=told.get("max_seq_length"),
        normalize="Normalize" in by_kind or old,
        similarity="meanmaxsim" if said.get("similarity_fn_name") == "meanmaxsim" else "maxsim",
        **_lengths(said if _has_old_keys(said) else told),
        **_skiplist(said, by_kind.get("MultiVectorMask"), is_old=old),
    )
    return MultiVectorFolder(by_kind["Transformer"], projections, settings)


def write_folder(
    folder: Path, projections: Sequence[Projection], settings: MultiVectorSettings
) -> None:
    """Write everything but the encoder's and the tokenizer's own files.

    Raises:
        ModelFolderError: the folder cannot be written.
    """
    kinds = ["Transformer", *["Dense"] * len(projections), "MultiVectorMask"]
    kinds += ["Normalize"] if settings.normalize else []
    modules = [
        Module(type=_TYPES[kind], path=f"{index}_{kind}" if index else "")
        for index, kind in enumerate(kinds)
    ]
    files: dict[str, Any] = {
        TRANSFORMER_FILE: _written_lengths(settings),
        SETTINGS_FILE: {
            "model_type": "MultiVectorEncoder",
            "prompts": dict(settings.prompts),
            "default_prompt_name": None,
            "similarity_fn_name": settings.similarity,
        },
        f"{modules[1 + len(projections)].path}/{CONFIG_FILE}": {
            "skiplist_words": list(settings.skiplist),
            "skiplist_tasks": list(settings.skiplist_sides),
            "keep_only_token_ids": None,
        },
    }
    tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    if settings.normalize:
        files[f"{modules[-1].path}/{CONFIG_FILE}"] = tokens
    for module, each in zip(modules[1:], projections, strict=False):
        files[f"{module.path}/{CONFIG_FILE}"] = {**_written_projection(each.settings), **tokens}
    try:
        with updated_folder(folder) as partial:
            for module, each in zip(modules[1:], projections, strict=False):
                (partial / module.path).mkdir()
                write_tensors(partial / module.path, dict(each.named_parameters()))
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None
    write_files(folder, modules, files)


def _read_projection(folder: Path) -> Projection:
    path = folder / CONFIG_FILE
    said = read_object(path)
    if said.get("module_input_name", "token_embeddings") != "token_embeddings":
        raise ConfigError(f"{path}: module_input_name: expected token_embeddings")
    try:
        settings = ProjectionSettings(
            in_features=int(said["in_features"]),
            out_features=int(said["out_features"]),
            bias=bool(said.get("bias", True)),
            activation=str(said.get("activation_function", "Tanh")).rpartition(".")[2],  # type: ignore[arg-type]
            residual=bool(said.get("use_residual", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    made = Projection(settings)
    expected = {name: tuple(value.shape) for name, value in made.named_parameters()}
    headers = {header.name: header for header in read_headers(folder)}
    found = {name: header.shape for name, header in headers.items()}
    if found != expected:
        raise ModelFolderError(f"{folder}: holds the tensors {found}, expected {expected}")
    made.load_state_dict(read_tensors(headers))
    return made


def _written_projection(settings: ProjectionSettings) -> dict[str, Any]:
    activation = settings.activation
    module = "linear" if activation == "Identity" else "activation"
    written = {
        "in_features": settings.in_features,
        "out_features": settings.out_features,
        "bias": settings.bias,
        "activation_function": f"torch.nn.modules.{module}.{activation}",
    }
    return {**written, "use_residual": True} if settings.residual else written


def _has_old_keys(said: Mapping[str, Any]) -> bool:
    """Whether the lengths stand where PyLate had them."""
    return any(key in said for key in ("query_length", "document_length", "query_prefix"))


def _prompts(said: Mapping[str, Any]) -> dict[str, str]:
    prompts = {name: text or "" for name, text in (said.get("prompts") or {}).items()}
    for side in ("query", "document"):
        if prefix := said.get(f"{side}_prefix"):
            prompts[side] = prefix + prompts.get(side, "").removeprefix(prefix)
    return prompts


def _lengths(said: Mapping[str, Any]) -> dict[str, Any]:
    """Lengths and expansion, as either format tells them."""
    expansion = said.get("query_expansion")
    query_length = said.get("query_length")
    is_old = "query_expansion" not in said and "query_prefix" in said
    if is_old and said.get("do_query_expansion") is not False:
        attend = bool(said.get("attend_to_expansion_tokens", False))
        expansion = {"strategy": "fixed", "attend": attend, "length": query_length or 32}
        query_length = None
    found: dict[str, Any] = {
        "query_max_seqlen": query_length,
        "document_max_seqlen": said.get("document_length"),
    }
    if expansion is not None:
        if not isinstance(expansion, dict) or expansion.get("token") not in (None, "[MASK]"):
            raise ConfigError("query_expansion: expected an object whose token is [MASK]")
        found["expansion"] = QueryExpansion(
            length=expansion.get("length", 32),
            strategy=expansion.get("strategy", "fixed"),
            attend=expansion.get("attend", False),
        )
    return found


def _written_lengths(settings: MultiVectorSettings) -> dict[str, Any]:
    written: dict[str, Any] = {"max_seq_length": settings.max_seqlen, "do_lower_case": False}
    if settings.query_max_seqlen is not None:
        written["query_length"] = settings.query_max_seqlen
    if settings.document_max_seqlen is not None:
        written["document_length"] = settings.document_max_seqlen
    if (expansion := settings.expansion) is not None:
        written["query_expansion"] = {
            "strategy": expansion.strategy,
            "attend": expansion.attend,
            "token": None,
            "length": expansion.length,
        }
    return written


def _skiplist(said: Mapping[str, Any], folder: Path | None, *, is_old: bool) -> dict[str, Any]:
    if folder is None:
        words = said.get("skiplist_words")
        usual = list(string.punctuation) if is_old else []
        return {"skiplist": tuple(usual if words is None else words)}
    config = read_object(folder / CONFIG_FILE)
    if config.get("keep_only_token_ids"):
        raise ConfigError(f"{folder / CONFIG_FILE}: keep_only_token_ids is not supported")
    sides = config.get("skiplist_tasks")
    return {
        "skiplist": tuple(config.get("skiplist_words") or ()),
        "skiplist_sides": ("document",) if sides is None else tuple(sides),
    }
