"""What a folder holds: the one answer that every verb and every class asks for.

Folders are told apart by the files in them and by a few keys of those. Nothing here knows how a
model is computed. `MODELS` has a row for each kind of model.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from modernbert.errors import FolderWarning, InputError, ModelFolderError
from modernbert.json_files import parse_foreign, read_json, read_object

ModelKind = Literal[
    "encoder",
    "masked_lm",
    "classifier",
    "reranker",
    "tagger",
    "answerer",
    "embedder",
    "multi_vector",
    "sparse",
]
Kind = (
    ModelKind
    | Literal[
        "tokenizer",
        "shards",
        "index",
        "vectors",
        "checkpoint",
        "run",
        "evaluation",
        "recipe",
        "adapter",
    ]
)

MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)


class ModelFacts(NamedTuple):
    """What is known of a kind of model without loading one.

    Attributes:
        name: What it is called in a sentence.
        made_by: The verb that makes such a model; none for what only other programs make.
        used_by: The verb that uses it.
        used_as: The class of `modernbert.inference` that uses it, as `module:name`.
        architecture: The class that config.json names; None where other files tell the kind.
    """

    name: str
    made_by: str
    used_by: str
    used_as: str
    architecture: str | None = None


MODELS: dict[ModelKind, ModelFacts] = {
    "encoder": ModelFacts(
        "an encoder without a head", "", "embed", "embedder:Embedder", "ModernBertModel"
    ),
    "masked_lm": ModelFacts(
        "a masked language model",
        "pretrain",
        "fill-mask",
        "fill_mask:FillMask",
        "ModernBertForMaskedLM",
    ),
    "classifier": ModelFacts(
        "a classifier of texts",
        "finetune classify",
        "classify",
        "classifier:Classifier",
        "ModernBertForSequenceClassification",
    ),
    "reranker": ModelFacts("a reranker", "finetune rerank", "rerank", "reranker:Reranker"),
    "tagger": ModelFacts(
        "a classifier of tokens",
        "finetune tag",
        "tag",
        "tagger:Tagger",
        "ModernBertForTokenClassification",
    ),
    "answerer": ModelFacts(
        "a model that answers questions",
        "finetune answer",
        "answer",
        "question_answerer:QuestionAnswerer",
        "ModernBertForQuestionAnswering",
    ),
    "embedder": ModelFacts("an embedding model", "finetune retrieve", "embed", "embedder:Embedder"),
    "multi_vector": ModelFacts(
        "a multi-vector model",
        "finetune late-interaction",
        "embed",
        "multi_vector_embedder:MultiVectorEmbedder",
    ),
    "sparse": ModelFacts(
        "a sparse embedding model", "finetune sparse", "embed", "sparse_embedder:SparseEmbedder"
    ),
}

NAMES: dict[Kind, str] = {
    **{kind: each.name for kind, each in MODELS.items()},
    "tokenizer": "a tokenizer",
    "shards": "token shards",
    "index": "a search index",
    "vectors": "a file of vectors",
    "checkpoint": "a checkpoint",
    "run": "a run",
    "evaluation": "the results of an evaluation",
    "recipe": "a recipe",
    "adapter": "adapters of PEFT",
}
"""What each kind is called in a sentence."""

USED_BY: dict[Kind, str] = {
    **{kind: each.used_by for kind, each in MODELS.items()},
    "index": "search",
    "run": "report",
}
"""The verb that uses each kind."""

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
RUN_MODEL = "model"

_BY_ARCHITECTURE = {each.architecture: kind for kind, each in MODELS.items() if each.architecture}
_BY_MODEL_TYPE: dict[str, ModelKind] = {
    "SentenceTransformer": "embedder",
    "CrossEncoder": "reranker",
    "SparseEncoder": "sparse",
    "MultiVectorEncoder": "multi_vector",
    "ColBERT": "multi_vector",  # PyLate
}
_INDEX_FORMATS = "modernbert search index", "modernbert multi-vector index", "modernbert index"
_RUN_FILES = "metrics.jsonl", "run.json"
_LIBRARIES = "sentence_transformers.", "pylate."


@dataclass(frozen=True, kw_only=True)
class Module:
    """One step of a folder of sentence-transformers.

    Attributes:
        type: The full name of its class.
        path: Its folder, within the model's.
    """

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """The last part of the class's name, such as `Pooling`."""
        return self.type.rpartition(".")[2]


def kind_of(path: Path) -> Kind:
    """Tell what a folder, or a file, holds.

    Raises:
        InputError: Nothing is there, or nothing that is known.
        ModelFolderError: A file that tells it cannot be read.
    """
    if (found := find_kind(path)) is not None:
        return found
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    expected = "a model, a tokenizer, token shards, a search index, a run or a checkpoint"
    raise InputError(
        f"{path}: contains nothing that is known here; expected {expected}, or a recipe"
    )


def find_kind(path: Path) -> Kind | None:
    """Tell what a folder, or a file, holds; None when it is nothing that is known.

    Raises:
        ModelFolderError: A file that tells it cannot be read.
    """
    if path.is_file():
        return {".toml": "recipe", ".npy": "vectors"}.get(path.suffix)  # type: ignore[return-value]
    if (path / ADAPTER_FILE).exists():  # transformers then takes the model that it names
        return "adapter"
    if (path / MANIFEST_FILE).exists():
        return _kind_of_manifest(path / MANIFEST_FILE)
    if _is_model(path):
        return model_kind(path)
    if (path / TOKENIZER_FILE).exists():
        return "tokenizer"
    if (path / "results.json").exists() and not (path / RUN_MODEL).is_dir():
        return "evaluation"
    is_sweep = (path / "recipe.toml").exists() and (path / "runs").is_dir()
    is_run = is_sweep or _is_model(path / RUN_MODEL)
    return "run" if is_run or any((path / name).exists() for name in _RUN_FILES) else None


def model_kind(folder: Path) -> ModelKind:
    """Tell what the model of a folder is for, from its settings alone.

    Raises:
        ModelFolderError: A file that cannot be read, or a model of no known kind.
    """
    modules = read_modules(folder)
    said = read_object(folder / SETTINGS_FILE).get("model_type")
    steps = [each.kind for each in modules]
    if "SpladePooling" in steps:
        return "sparse"
    named = _BY_MODEL_TYPE.get(str(said))
    if said is None and any(each.type.startswith("pylate.") for each in modules):
        named = "multi_vector"  # PyLate with sentence-transformers before version 5
    if named == "multi_vector" or (named == "reranker" and len(steps) > 1):
        return named
    # A cross-encoder of before version 5 names no type and has one step at most.
    if len(steps) > 1 or (steps and named == "embedder"):
        return "embedder"
    return _kind_of_config(folder, is_reranker=named == "reranker")


def model_folder(path: Path, wanted: tuple[ModelKind, ...] = ()) -> Path:
    """Find the folder of a model where a person named one.

    The folder of a run stands for the model within; a `FolderWarning` says that it was taken.

    Args:
        path: A folder that is there.
        wanted: What the model is to be for; the first is the one that a message names. Any
            model when empty.

    Raises:
        ModelFolderError: The folder holds something else.
    """
    if not _is_model(path) and _is_model(path / RUN_MODEL):
        taken = path / RUN_MODEL
        said = f"{path}: is the folder of a run; the model in it, {taken}, is taken"
        warnings.warn(said, FolderWarning, stacklevel=2)
        path = taken
    if not wanted and _is_model(path) and not (path / ADAPTER_FILE).exists():
        return path
    kind = find_kind(path)
    if kind is None or kind in wanted:
        return path
    expected = NAMES[next(iter(wanted))] if wanted else "a model"
    raise ModelFolderError(
        f"{path}: holds {NAMES[kind]}, expected {expected}{_advice(kind, wanted)}"
    )


def tokenizer_folder(path: Path) -> Path:
    """Find the folder of a tokenizer where a person named one, or a model or a run.

    Raises:
        ModelFolderError: A file that tells it cannot be read.
    """
    if (path / TOKENIZER_FILE).exists():
        return path
    if not _is_model(path) and (path / RUN_MODEL / TOKENIZER_FILE).exists():
        return path / RUN_MODEL
    modules = read_modules(path)
    return path / modules[0].path if modules else path


def read_modules(folder: Path) -> list[Module]:
    """Read the steps of a folder of sentence-transformers, in their order.

    Returns:
        The steps; none for a plain model.

    Raises:
        ModelFolderError: The file cannot be read, a step leads out of the folder, or it is of a
            class that the model brings along.
    """
    path = folder / MODULES_FILE
    entries = read_json(path)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ModelFolderError(f"{path}: expected a list of modules with type and path")
    modules = [parse_foreign(Module, each, str(path)) for each in entries]
    for module in modules:
        place = Path(module.path)
        if place.is_absolute() or ".." in place.parts:
            raise ModelFolderError(f"{path}: the path {module.path!r} leads out of the folder")
        if not module.type.startswith(_LIBRARIES):
            raise ModelFolderError(
                f"{path}: the class {module.type!r} is custom code of the model, which is never run"
            )
    return modules


def _kind_of_manifest(path: Path) -> Kind:
    said = read_object(path)
    if str(said.get("format")).startswith(_INDEX_FORMATS):
        return "index"
    return "checkpoint" if (path.parent / "progress.json").exists() else "shards"


def _kind_of_config(folder: Path, *, is_reranker: bool) -> ModelKind:
    path = folder / CONFIG_FILE
    config = read_object(path)
    named: Any = config.get("architectures") or ["ModernBertModel"]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise ModelFolderError(f"{path}: architectures: expected a list of names of classes")
    if (kind := _BY_ARCHITECTURE.get(named[0])) is None:
        raise ModelFolderError(
            f"{path}: holds a {named[0]}; expected one of {', '.join(_BY_ARCHITECTURE)}"
        )
    # Both keys are a CrossEncoder's: the one since version 4, the other before.
    marks = "sentence_transformers", "sbert_ce_default_activation_function"
    is_reranker = is_reranker or any(mark in config for mark in marks)
    labels = config.get("id2label")
    has_one_label = isinstance(labels, dict) and len(labels) == 1
    return "reranker" if kind == "classifier" and is_reranker and has_one_label else kind


def _is_model(path: Path) -> bool:
    return (path / CONFIG_FILE).exists() or (path / MODULES_FILE).exists()


def _advice(kind: Kind, wanted: tuple[ModelKind, ...]) -> str:
    """What to do with a folder of one kind where another is wanted."""
    made = next((MODELS[each].made_by for each in wanted if MODELS[each].made_by), None)
    if kind in ("encoder", "masked_lm") and made:
        return f"; fine-tune it with `modernbert {made}`"
    if kind == "adapter":
        return "; merge them in PEFT with `merge_and_unload()` and save the model that it returns"
    used = USED_BY.get(kind)
    return f"; `modernbert {used}` is for it" if used else ""
