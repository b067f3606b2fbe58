"""The model to export, the files next to its weights, and the packages that an export needs."""

import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modernbert.errors import ExportError
from modernbert.inference.embedder_folder import read_embedder_settings
from modernbert.kinds import ModelKind, model_kind, read_modules
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.heads import HEADS, MaskedLanguageModel, SequenceClassifier
from modernbert.model.pooling import Poolings
from modernbert.model.pretrained import SavedModel
from modernbert.model.weights import INDEX_FILE
from modernbert.tokenizer.tokenizer import Tokenizer

# As in the extra `export` of pyproject.toml.
NEEDED = {"onnx": (1, 20), "onnxscript": (0, 7), "onnxruntime": (1, 25)}


def require_packages() -> None:
    """Check all packages before any work is done.

    Raises:
        ExportError: A package is missing or too old.
    """
    for name, least in NEEDED.items():
        wanted = ".".join(map(str, least))
        try:
            found = version(name)
        except PackageNotFoundError:
            raise ExportError(
                f"{name} is not installed: pip install 'modernbert[export]'"
            ) from None
        if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
            raise ExportError(
                f"{name}: got version {found}, expected {wanted} or later: "
                "pip install -U 'modernbert[export]'"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the packages' messages, which concern their internals, from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
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
    beside_config = folder / source.encoder_folder.relative_to(source.folder)
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "tokenizer"
        longest = min(source.tokenizer.model_max_length, source.model.config.max_seqlen)
        source.tokenizer.save_pretrained(written, model_max_length=longest)
        for path in written.iterdir():
            if not (beside_config / path.name).exists():
                shutil.copyfile(path, beside_config / path.name)
