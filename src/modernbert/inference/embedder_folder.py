"""How an encoder is used for embeddings, as sentence-transformers writes it into a folder.

See `foreign_files` for the files. The steps are a transformer, a pooling, and any number of layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.inference.foreign_files import (
    LAYERS,
    POOLING_KEYS,
    EmbedderFile,
    PoolingFile,
    TransformerFile,
    read_layers,
    read_prompt_file,
    refuse_steps,
    write_files,
    write_weights,
    written_layer,
)
from modernbert.inference.similarity import Similarity
from modernbert.json_files import read_object, read_settings
from modernbert.kinds import (
    CONFIG_FILE,
    MODULES_FILE,
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    Module,
    read_modules,
)
from modernbert.model.pooling import Normalize, Poolings, TextPooling

Side = Literal["query", "document"]

_NAMES: Mapping[Side, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """The prompts of a model.

    Attributes:
        prompts: Texts by name; `query` and `document` are for the two sides of a search.
        default_prompt_name: The prompt that is taken where none is asked for.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    def __post_init__(self) -> None:
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            known = ", ".join(self.prompts) or "there are none"
            name = f"default_prompt_name: {self.default_prompt_name!r}"
            raise ConfigError(f"{name} is not one of the prompts ({known})")

    def prompt(self, prompt: str | None = None, name: str | None = None) -> str:
        """Choose what to put before each text: the one given, the named one, or the default.

        Raises:
            InputError: A name that the model has no prompt of.
        """
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise InputError(f"prompt_name: got {name!r}, but the model's prompts are: {known}")
        return "" if name is None else self.prompts[name]

    def side_prompt(self, side: Side) -> str:
        """Return the prompt of one side of a search; the default does not count."""
        return next((self.prompts[name] for name in _NAMES[side] if name in self.prompts), "")

    def of_side(self, side: Side, options: Any) -> Any:
        """Return options with the prompt of one side, unless they name another."""
        if options.get("prompt") is not None or options.get("prompt_name") is not None:
            return options
        return {**options, "prompt": self.side_prompt(side)}


@dataclass(frozen=True, kw_only=True)
class EmbedderSettings(Prompted):
    """What makes one vector of a text.

    Attributes:
        pooling: How the vectors of the tokens become one; several are joined, see `pool`.
        normalize: Whether the model's own vectors have length 1.
        max_seqlen: The longest sequence, in tokens; None for what the model reads.
        pool_prompt: Whether the tokens of the prompt are pooled too.
        similarity: How vectors are compared.
        truncate_dim: How many numbers of each vector are kept; None for all.
    """

    pooling: Poolings = "mean"
    normalize: bool = False
    max_seqlen: int | None = None
    pool_prompt: bool = True
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = (self.pooling,) if isinstance(self.pooling, str) else self.pooling
        checked = [("pooling", each, TextPooling) for each in kinds]
        for name, got, known in (*checked, ("similarity", self.similarity, Similarity)):
            if got not in get_args(known):
                expected = ", ".join(get_args(known))
                raise ConfigError(f"{name}: got {got!r}, expected one of {expected}")
        if not kinds:
            raise ConfigError("pooling: got none, expected one or more")

    @property
    def num_poolings(self) -> int:
        """How many vectors of the encoder's width are joined."""
        return 1 if isinstance(self.pooling, str) else len(self.pooling)


_POOLING_FOLDER = "1_Pooling"
_SUPPORTED = f"Transformer, Pooling and then, or not, {', '.join(LAYERS)} are"


class PooledFolder(NamedTuple):
    """What a folder says of one vector a text.

    Attributes:
        encoder: The folder of the encoder and its tokenizer.
        pooling: How the vectors of the tokens become one.
        layers: What comes after that.
        max_seqlen: The longest sequence, in tokens; None where it does not say.
        is_lowered: Whether texts are lowercased.
    """

    encoder: Path
    pooling: PoolingFile
    layers: list[nn.Module]
    max_seqlen: int | None
    is_lowered: bool


def read_pooled_folder(folder: Path) -> PooledFolder:
    """Read the steps of a folder whose second is a Pooling.

    Raises:
        ModelFolderError: A file that cannot be used, or a step that is not supported.
    """
    modules = read_modules(folder)
    kinds = [each.kind for each in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= set(LAYERS):
        raise refuse_steps(folder, modules, _SUPPORTED)
    place, pooling = (folder / each.path for each in modules[:2])
    if not (pooling / CONFIG_FILE).exists():
        raise ModelFolderError(f"{pooling / CONFIG_FILE}: missing; it says how tokens are pooled")
    transformer = read_settings(TransformerFile, place / TRANSFORMER_FILE)
    return PooledFolder(
        place,
        read_settings(PoolingFile, pooling / CONFIG_FILE),
        read_layers(folder, modules[2:], "sentence_embedding"),
        transformer.max_seq_length,
        transformer.do_lower_case,
    )


def read_embedder(folder: Path) -> tuple[PooledFolder, EmbedderSettings]:
    """Read what a model's folder says, and the layers behind its pooling.

    A folder without modules.json is a plain model: pooling is what its config.json says of
    classifiers, or the mean.

    Raises:
        ModelFolderError: A file that cannot be used, or a step that is not supported.
        ConfigError: Settings that contradict each other.
    """
    if not (folder / MODULES_FILE).exists():
        pooling: Any = read_object(folder / CONFIG_FILE).get("classifier_pooling") or "mean"
        plain = PooledFolder(folder, PoolingFile(pooling_mode=(pooling,)), [], None, False)
        return plain, EmbedderSettings(pooling=pooling)
    found = read_pooled_folder(folder)
    said = read_prompt_file(EmbedderFile, folder)
    normalize = bool(found.layers) and isinstance(found.layers[-1], Normalize)
    poolings = found.pooling.poolings
    settings = EmbedderSettings(
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
        pooling=poolings[0] if len(poolings) == 1 else poolings,
        pool_prompt=found.pooling.include_prompt,
        normalize=normalize,
        max_seqlen=found.max_seqlen,
        similarity=said.similarity_fn_name,
        truncate_dim=said.truncate_dim,
    )
    return found._replace(layers=found.layers[:-1] if normalize else found.layers), settings


def read_embedder_settings(folder: Path) -> tuple[Path, EmbedderSettings]:
    """Return the encoder's folder within a model's, and how it is used; see `read_embedder`."""
    found, settings = read_embedder(folder)
    return found.encoder, settings


def write_embedder(
    folder: Path, settings: EmbedderSettings, hidden_size: int, layers: tuple[nn.Module, ...] = ()
) -> None:
    """Write everything but the encoder's and the tokenizer's own files.

    sentence-transformers of any version reads them, joined poolings and layers that it has.

    Raises:
        ModelFolderError: The folder cannot be written.
    """
    said: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity,
    }
    if settings.truncate_dim is not None:
        said["truncate_dim"] = settings.truncate_dim
    files: dict[str, Any] = {
        TRANSFORMER_FILE: {"max_seq_length": settings.max_seqlen, "do_lower_case": False},
        f"{_POOLING_FOLDER}/{CONFIG_FILE}": {
            "word_embedding_dimension": hidden_size,
            **_written_poolings(settings),
            "include_prompt": settings.pool_prompt,
        },
        SETTINGS_FILE: said,
    }
    # The names of these classes before version 6, which later versions read as well.
    home = "sentence_transformers.models"
    modules = [Module(type=f"{home}.Transformer")]
    modules.append(Module(type=f"{home}.Pooling", path=_POOLING_FOLDER))
    for layer in (*layers, *([Normalize()] if settings.normalize else [])):
        kind, config = written_layer(layer, "sentence_embedding")
        module = Module(type=f"{home}.{kind}", path=f"{len(modules)}_{kind}")
        modules.append(module)
        files |= {f"{module.path}/{CONFIG_FILE}": config} if config else {}
    write_files(folder, modules, files)
    try:
        for module, layer in zip(modules[2:], layers, strict=False):
            write_weights(layer, folder / module.path)
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None


def _written_poolings(settings: EmbedderSettings) -> dict[str, Any]:
    """The keys of all versions; joined poolings in another order need those of the newest."""
    kinds = (settings.pooling,) if isinstance(settings.pooling, str) else settings.pooling
    if [each for each in POOLING_KEYS.values() if each in kinds] != list(kinds):
        return {"pooling_mode": list(kinds)}
    return {key: mode in kinds for key, mode in POOLING_KEYS.items()}
