"""A model of one vector a token in a folder, as sentence-transformers' MultiVectorEncoder has it.

The files of the encoder and its tokenizer, those of `foreign_files`, and

1_Dense/              a projection, its config and its weights; there may be several
2_MultiVectorMask/    which tokens are left out
3_Normalize/          vectors of length 1

Folders of PyLate before it took over that format are read too.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.foreign_files import (
    PromptFile,
    TransformerFile,
    read_layers,
    read_prompt_file,
    refuse_steps,
    write_files,
    write_weights,
    written_layer,
)
from modernbert.inference.multi_vector_inputs import MultiVectorSettings, QueryExpansion
from modernbert.json_files import read_object, read_settings
from modernbert.kinds import CONFIG_FILE, SETTINGS_FILE, TRANSFORMER_FILE, Module, read_modules
from modernbert.model.multi_vector import Projection

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
    is_lowered: bool = False


@dataclass(frozen=True, kw_only=True)
class _ExpansionFile:
    """The key query_expansion of either file."""

    length: int = 32
    strategy: Literal["fixed", "min"] = "fixed"
    attend: bool = False
    token: Literal["[MASK]"] = "[MASK]"


@dataclass(frozen=True, kw_only=True)
class _ToldFile(TransformerFile):
    """sentence_bert_config.json."""

    query_length: int | None = None
    document_length: int | None = None
    query_expansion: _ExpansionFile | None = None


@dataclass(frozen=True, kw_only=True)
class _SaidFile(PromptFile):
    """config_sentence_transformers.json, with the keys of PyLate."""

    default_prompt_name: Literal["query", "document"] | None = None
    similarity_fn_name: Literal["maxsim", "meanmaxsim", "MaxSim", "cosine", "dot"] = "maxsim"
    query_length: int | None = None
    document_length: int | None = None
    query_expansion: _ExpansionFile | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    do_query_expansion: bool = True
    attend_to_expansion_tokens: bool = False
    skiplist_words: tuple[str, ...] | None = None

    @property
    def has_lengths(self) -> bool:
        """Whether the lengths stand here, where PyLate had them."""
        old = self.query_length, self.document_length, self.query_prefix
        return any(value is not None for value in old)


@dataclass(frozen=True, kw_only=True)
class _MaskFile:
    """config.json of a MultiVectorMask."""

    skiplist_words: tuple[str, ...] = ()
    skiplist_tasks: tuple[str, ...] = ("document",)


def read_folder(folder: Path) -> MultiVectorFolder:
    """Read what a model's folder says, and its projections.

    Raises:
        ModelFolderError: A file that cannot be used, or steps that are not supported.
        ConfigError: Settings that contradict each other.
    """
    modules = read_modules(folder)
    dense = [each for each in modules if each.kind == "Dense"]
    rest = [each.kind for each in modules if each.kind not in ("Dense", "Dropout")]
    usual = ["Transformer", "MultiVectorMask", "Normalize"]
    if not dense or rest[:1] != usual[:1] or rest != [each for each in usual if each in rest]:
        raise refuse_steps(folder, modules, _SUPPORTED)
    by_kind = {each.kind: folder / each.path for each in modules}
    is_old = read_object(folder / SETTINGS_FILE).get("model_type") in ("ColBERT", None)
    # PyLate names no feature in a Dense: there all layers take the vectors of tokens.
    layers: Any = read_layers(folder, dense, "token_embeddings", default="token_embeddings")
    place = by_kind["Transformer"]
    said = read_prompt_file(_SaidFile, folder)
    told = read_settings(_ToldFile, place / TRANSFORMER_FILE)
    mask = by_kind.get("MultiVectorMask")
    settings = MultiVectorSettings(
        prompts=_prompts(said),
        max_seqlen=told.max_seq_length,
        normalize="Normalize" in by_kind or is_old,
        similarity="meanmaxsim" if said.similarity_fn_name == "meanmaxsim" else "maxsim",
        **_lengths(said, told),
        **(_old_skiplist(said, is_old=is_old) if mask is None else _skiplist(mask)),
    )
    return MultiVectorFolder(place, layers, settings, told.do_lower_case)


def write_folder(
    folder: Path, projections: Sequence[Projection], settings: MultiVectorSettings
) -> None:
    """Write everything but the encoder's and the tokenizer's own files.

    Raises:
        ModelFolderError: The folder cannot be written.
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
        files[f"{module.path}/{CONFIG_FILE}"] = written_layer(each, "token_embeddings")[1]
    with updated_folder(folder, error=ModelFolderError) as partial:
        for module, each in zip(modules[1:], projections, strict=False):
            write_weights(each, partial / module.path)
    write_files(folder, modules, files)


def _prompts(said: "_SaidFile") -> dict[str, str]:
    prompts = dict(said.prompts)
    for side, prefix in (("query", said.query_prefix), ("document", said.document_prefix)):
        if prefix:
            prompts[side] = prefix + prompts.get(side, "").removeprefix(prefix)
    return prompts


def _lengths(said: "_SaidFile", told: "_ToldFile") -> dict[str, Any]:
    """Lengths and expansion, as either format tells them."""
    if said.has_lengths:
        query, document, expansion = said.query_length, said.document_length, said.query_expansion
    else:
        query, document, expansion = told.query_length, told.document_length, told.query_expansion
    is_old = said.has_lengths and expansion is None and said.query_prefix is not None
    if is_old and said.do_query_expansion:
        attend = said.attend_to_expansion_tokens
        expansion = _ExpansionFile(strategy="fixed", attend=attend, length=query or 32)
        query = None
    found: dict[str, Any] = {"query_max_seqlen": query, "document_max_seqlen": document}
    if expansion is not None:
        found["expansion"] = QueryExpansion(
            length=expansion.length, strategy=expansion.strategy, attend=expansion.attend
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


def _old_skiplist(said: "_SaidFile", *, is_old: bool) -> dict[str, Any]:
    """What is left out where no step says it: PyLate leaves out punctuation by default."""
    usual = tuple(string.punctuation) if is_old else ()
    return {"skiplist": usual if said.skiplist_words is None else said.skiplist_words}


def _skiplist(folder: Path) -> dict[str, Any]:
    mask = read_settings(_MaskFile, folder / CONFIG_FILE)
    return {"skiplist": mask.skiplist_words, "skiplist_sides": mask.skiplist_tasks}
