"""The model to export, and the files next to its weights."""

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from modernbert.errors import ExportError
from modernbert.files import updated_folder
from modernbert.inference.embedder_folder import read_embedder_settings
from modernbert.kinds import ModelKind, model_kind, read_modules
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.heads import HEADS, MaskedLanguageModel, SequenceClassifier
from modernbert.model.pooling import Poolings
from modernbert.model.pretrained import SavedModel
from modernbert.model.weights import INDEX_FILE
from modernbert.tokenizer.tokenizer import Tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the packages' messages and bars, which concern their internals, from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


_CLASSES: dict[ModelKind, type[SavedModel]] = {
    **{each.kind: each for each in HEADS},
    "sparse": MaskedLanguageModel,
    "reranker": SequenceClassifier,
}
_WEIGHTS = ".safetensors"
_COPIED = (".json", ".md", ".txt", ".jinja", _WEIGHTS)


@dataclass(frozen=True)
class ExportSource:
    """A model with its tokenizer and folder.

    Attributes:
        folder: The folder of the model.
        encoder_folder: The folder within it that holds config.json and the weights.
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        pooling: How an encoder's vectors of tokens become one.
    """

    folder: Path
    encoder_folder: Path
    model: SavedModel
    tokenizer: Tokenizer
    pooling: Poolings

    @property
    def kind(self) -> str:
        """The name of the model's class in transformers."""
        return self.model.architecture()

    @property
    def place(self) -> Path:
        """The folder of config.json and the weights, relative to that of the model."""
        return self.encoder_folder.relative_to(self.folder)


def open_source(folder_or_hub_id: Path | str) -> ExportSource:
    """Load a model of any kind.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
        ConfigError: The config is not supported.
    """
    folder = find_model(folder_or_hub_id, weights=True)
    kind = model_kind(folder)
    steps = read_modules(folder)
    encoder_folder = folder / steps[0].path if steps else folder
    # Further modules of sentence-transformers take hidden states, whatever head the folder has.
    cls = _CLASSES.get(kind, Encoder) if len(steps) < 2 or kind == "sparse" else Encoder
    model = cls.from_pretrained(encoder_folder)
    tokenizer = Tokenizer.from_pretrained(encoder_folder)
    pooling = read_embedder_settings(folder)[1].pooling if kind == "embedder" else "mean"
    return ExportSource(folder, encoder_folder, model.eval(), tokenizer, pooling)


@contextmanager
def exported_folder(source: ExportSource, target: Path, name: str) -> Iterator[Path]:
    """Write a folder that holds a model's settings and, in a folder of its own, the exported files.

    Nothing is kept unless all of it was written.

    Args:
        source: The model with its tokenizer and settings.
        target: The folder to write to, which may be the model's own; its other files stay.
        name: The folder within it, beside the model's config.

    Yields:
        Where to write the exported files.

    Raises:
        ExportError: The folder cannot be written.
    """
    try:
        with updated_folder(target) as partial:
            if target.resolve() != source.folder.resolve():
                copy_settings(source, partial)
            place = partial / source.place / name
            place.mkdir(parents=True, exist_ok=True)
            yield place
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error}") from None


def copy_settings(source: ExportSource, folder: Path) -> None:
    """Copy all files but the weights that are exported, and complete the tokenizer's files.

    Weights of further modules, such as a dense layer, are copied. Some engines need
    special_tokens_map.json, which transformers 5 does not write.
    """
    for path in sorted(source.folder.rglob("*")):
        place = path.relative_to(source.folder)
        is_hidden = any(part.startswith(".") for part in place.parts)
        is_exported = path.parent == source.encoder_folder and (
            path.suffix == _WEIGHTS or path.name == INDEX_FILE
        )
        if path.suffix in _COPIED and path.is_file() and not is_hidden and not is_exported:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
    beside_config = folder / source.place
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "tokenizer"
        longest = min(source.tokenizer.model_max_length, source.model.config.max_seqlen)
        source.tokenizer.save_pretrained(written, model_max_length=longest)
        for path in written.iterdir():
            if not (beside_config / path.name).exists():
                shutil.copyfile(path, beside_config / path.name)
