"""Comparing an exported file with the model, on batches that would reveal a difference."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ExportError
from modernbert.model.pretrained import SavedModel

# Relative to the largest output; two engines add numbers in different orders.
RELATIVE_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 2e-2
Run = Callable[[Tensor, Tensor], list[np.ndarray]]
"""An engine with a file: ids and a mask of tokens, (rows, columns) each, to all outputs."""

_BATCHES = ((1,), (7, 64, 65), (129, 3, 130, 1), (200, 63), (400,))


def largest_difference(
    run: Run, model: SavedModel, *, tolerance: float = RELATIVE_TOLERANCE
) -> float:
    """Compare a file with the model on ragged batches, shorter and longer than the window.

    Args:
        run: Runs the file in the engine that it is for.
        model: The model that was exported.
        tolerance: The largest difference that is rounding, relative to the largest output.

    Returns:
        The largest difference of two outputs at a real token.

    Raises:
        ExportError: The difference is larger than rounding explains.
    """
    largest = 0.0
    for lengths in _BATCHES:
        token_ids, present = _batch(lengths, model)
        for left in (False, True) if _takes_left_padding(model) else (False,):
            ids, mask = (token_ids.flip(1), present.flip(1)) if left else (token_ids, present)
            outputs = run(ids.contiguous(), mask.contiguous())
            for name, theirs, ours in zip(
                model.outputs, outputs, native_outputs(model, ids, mask), strict=True
            ):
                real = ... if model.is_of_texts else mask.numpy()
                difference = _difference(ours, theirs, real)
                largest = max(largest, difference)
                if not difference <= tolerance * max(1.0, float(np.abs(ours).max())):
                    raise ExportError(
                        f"{name} differs from the model by {difference:.2g} at lengths {lengths}: "
                        "the export is wrong and was not kept"
                    )
    return largest


@torch.no_grad()
def native_outputs(model: Any, token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
    """Compute the model's outputs, with the shapes of the exported file's outputs."""
    batch = PackedBatch.from_padded(token_ids, present)
    values: Tensor = model(batch)
    if model.is_of_texts:
        return [values.numpy()]
    padded = batch.to_padded(values)
    parts = padded.unbind(-1) if len(model.outputs) > 1 else (padded,)
    return [part.numpy() for part in parts]


def _takes_left_padding(model: Any) -> bool:
    """Return whether a model takes padding on the left: all do but those with cls pooling."""
    return not (model.is_of_texts and model.settings.pooling == "cls")


def _difference(ours: np.ndarray, theirs: np.ndarray, real: Any) -> float:
    """Return the largest difference; `real` is an index of the entries that count."""
    if ours.shape != theirs.shape:
        raise ExportError(f"got outputs {theirs.shape}, expected {ours.shape}")
    return float(np.abs(ours - theirs)[real].max())


def _batch(lengths: Sequence[int], model: SavedModel) -> tuple[Tensor, Tensor]:
    """Return random ids, no longer than the model reads, and a mask of tokens."""
    cut = torch.tensor(lengths).clamp(max=model.config.max_seqlen)
    columns = int(cut.max())
    generator = torch.Generator().manual_seed(columns)
    shape = (len(lengths), columns)
    token_ids = torch.randint(model.config.vocab_size, shape, generator=generator)
    return token_ids, torch.arange(columns) < cut[:, None]
