"""What is exported: the model of a folder, of whichever kind, and the files beside its weights."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from modernbert.errors import ExportError
from modernbert.inference.embedder_folder import read_settings
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from modernbert.model.names import ARCHITECTURES
from modernbert.model.pooling import Pooling
from modernbert.model.pretrained import SavedModel
from modernbert.tokenizer.tokenizer import Tokenizer

_KINDS: tuple[type[SavedModel], ...] = (
    Encoder,
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
    SpanClassifier,
)
_COPIED = (".json", ".md", ".txt", ".jinja", ".model")
_WEIGHT_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """A model, its tokenizer and where they are from.

    folder: with all files. encoder_folder: that of config.json and the weights, within it.
    pooling: how the model's vectors become one, where it is an encoder.
    """

    folder: Path
    encoder_folder: Path
    model: SavedModel
    tokenizer: Tokenizer
    pooling: Pooling

    @property
    def kind(self) -> str:
        """What transformers calls the model."""
        return ARCHITECTURES[type(self.model).__name__]


def open_source(folder_or_hub_id: Path | str) -> Source:
    """Load the model of a folder, as the kind that the folder says it is.

    Raises:
        ModelFolderError: no such model, or one that cannot be used.
        TokenizerError: no tokenizer beside it, or one that cannot be used.
        ConfigError: a config that is not supported.
        ExportError: a kind of model that cannot be exported.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    encoder_folder, settings = read_settings(folder)
    cls = Encoder if (folder / "modules.json").is_file() else _kind_of(encoder_folder)
    model = cls.from_pretrained(encoder_folder)
    tokenizer = Tokenizer.from_pretrained(encoder_folder)
    return Source(folder, encoder_folder, model.eval(), tokenizer, settings.pooling)


def _kind_of(folder: Path) -> type[SavedModel]:
    named = read_config_file(folder).get("architectures") or ["ModernBertModel"]
    kinds = {ARCHITECTURES[kind.__name__]: kind for kind in _KINDS}
    if named[0] not in kinds:
        raise ExportError(f"{folder}: holds a {named[0]}, expected one of {', '.join(kinds)}")
    return kinds[named[0]]


def copy_settings(source: Source, folder: Path) -> None:
    """Copy all that is no weights, and complete the tokenizer's files.

    Some engines ask for special_tokens_map.json, which transformers 5 does not write.
    """
    for path in sorted(source.folder.rglob("*")):
        place = path.relative_to(source.folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.suffix in _COPIED and path.is_file() and not hidden and path.name != _WEIGHT_INDEX:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
    beside_config = folder / source.encoder_folder.relative_to(source.folder)
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "tokenizer"
        longest = min(source.tokenizer.model_max_length, source.model.config.max_seqlen)
        source.tokenizer.save_pretrained(written, model_max_length=longest)
        for path in written.iterdir():
            if not (beside_config / path.name).exists():
                shutil.copyfile(path, beside_config / path.name)
