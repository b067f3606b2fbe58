"""The model to export, alone and over padded rows, and the files next to its weights.

Over padded rows a model computes in plain operations, with weights that are the model's own. Any
number of rows and columns is allowed: the tables of angles and the masks are computed in the graph
from the length of the input.
"""

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.errors import ExportError
from modernbert.files import updated_folder
from modernbert.inference.embedder_folder import read_embedder_settings
from modernbert.kinds import ModelKind, model_kind, read_modules
from modernbert.model.config import LayerKind
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.heads import HEADS, MaskedLanguageModel, SequenceClassifier
from modernbert.model.layer import ACTIVATIONS
from modernbert.model.pooling import Poolings
from modernbert.model.pretrained import SavedModel
from modernbert.model.rope import rotary_tables
from modernbert.model.weights import INDEX_FILE
from modernbert.tokenizer.tokenizer import Tokenizer

# Added to scores that must not count. It is finite, as a row of only padding has no other scores.
_NEVER = -1e30

INPUTS = ("input_ids", "attention_mask")
_EXAMPLE = (3, 150)


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
    with updated_folder(target, error=ExportError) as partial:
        if target.resolve() != source.folder.resolve():
            copy_settings(source, partial)
        place = partial / source.place / name
        place.mkdir(parents=True, exist_ok=True)
        yield place


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


class PaddedModel(nn.Module):
    """A model that takes padded token ids and a mask."""

    def __init__(self, model: SavedModel) -> None:
        """Wrap an encoder or a model with a head, with float32 weights."""
        super().__init__()
        self.model = model
        encoder: Any = getattr(model, "encoder", model)
        self.encoder: Encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Compute what `outputs` of the model names.

        Args:
            input_ids: (rows, columns) int64.
            attention_mask: (rows, columns) int64, 0 at padding, which is on the right or the left
                of the tokens.

        Returns:
            The outputs; those at padding have no meaning.
        """
        model: Any = self.model
        hidden = padded_hidden(self.encoder, input_ids, attention_mask)
        if isinstance(model, Encoder):
            return (hidden,)
        if model.is_of_texts:
            return (model.logits(_pooled(hidden, attention_mask, model.settings.pooling)),)
        # (rows x columns, width): a plain product with the vocabulary, whatever the rows
        logits = model.logits(hidden.flatten(0, 1)).unflatten(0, input_ids.shape)
        return logits.unbind(-1) if len(model.outputs) > 1 else (logits,)


def example_inputs(
    model: SavedModel,
) -> tuple[PaddedModel, tuple[Tensor, Tensor], dict[str, dict[int, Any]]]:
    """Return what torch traces a model with: the module, its inputs, and their free dimensions."""
    config: Any = model.config
    ids, mask = torch.full(_EXAMPLE, config.cls_token_id), torch.ones(_EXAMPLE, dtype=torch.int64)
    mask[1, _EXAMPLE[1] // 2 :] = 0
    free = {0: torch.export.Dim("rows"), 1: torch.export.Dim("columns")}
    return PaddedModel(model).eval(), (ids, mask), dict.fromkeys(INPUTS, free)


def padded_hidden(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Run the encoder: (rows, columns) int64 each to (rows, columns, hidden_size)."""
    config = encoder.config
    rows, columns = input_ids.shape
    positions = torch.arange(columns, device=input_ids.device)
    biases = _biases(attention_mask != 0, positions, config.window)
    angles = rotary_tables(config, positions)
    hidden = encoder.embeddings(input_ids).flatten(0, 1)  # (rows x columns, hidden_size)
    for layer, kind in zip(encoder.layers, config.layer_kinds, strict=True):
        parts: Any = layer
        qkv = parts.attn.Wqkv(parts.attn_norm(hidden))
        qkv = qkv.view(rows, columns, 3, config.num_heads, config.head_size)
        attended = _attend(qkv, angles[kind], biases[kind])
        hidden = hidden + parts.attn.Wo(attended)
        halves = parts.mlp.Wi(parts.mlp_norm(hidden))
        activated, factors = halves.chunk(2, dim=-1)
        gated = ACTIVATIONS[config.activation](activated) * factors
        hidden = hidden + parts.mlp.Wo(gated)
    normed: Tensor = encoder.final_norm(hidden).unflatten(0, (rows, columns))
    return normed


def _attend(qkv: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor) -> Any:
    """Attend: (rows, columns, 3, num_heads, head_size) to (rows x columns, hidden_size)."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (rows, heads, columns, head_size)
    query = _rotated(query, *angles) * qkv.shape[-1] ** -0.5
    scores = query @ _rotated(key, *angles).transpose(-1, -2) + bias
    attended = scores.softmax(dim=-1) @ value
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _biases(present: Tensor, positions: Tensor, window: int) -> dict[LayerKind, Tensor]:
    """Return what is added to the scores: 0, or `_NEVER` for keys that a query must not see.

    (rows, 1, 1, columns) for global layers, (rows, 1, columns, columns) for local ones.
    """
    keys = present[:, None, None, :]
    near = (positions[:, None] - positions).abs() <= window
    zero = torch.zeros(())
    never = torch.full((), _NEVER)
    return {
        "global": torch.where(keys, zero, never),
        "local": torch.where(keys & near, zero, never),
    }


def _pooled(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Pool the hidden states: (rows, columns, width) to (rows, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = attention_mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
