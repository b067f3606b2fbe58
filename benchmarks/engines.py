"""Ours and everyone else's, behind one call: lists of token ids in, one tensor a sequence out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.models import Model
from modernbert.batch import PackedBatch
from modernbert.model.encoder import Encoder

Precision = Literal["float32", "bfloat16", "int8"]
Sequences = Sequence[Sequence[int]]
Encode = Callable[[Sequences, int | None], list[Tensor]]
"""Of each sequence the hidden states, (length, hidden_size).

The number is that of the sequences in a padded batch, sorted by length; None is all in one.
"""

PADDING_ID = 0


def precision_of(name: str) -> Precision:
    """What an engine computes in, by its name.

    >>> precision_of("openvino int8 static"), precision_of("transformers autocast")
    ('int8', 'bfloat16')
    """
    known: tuple[Precision, ...] = ("float32", "int8")
    return next((each for each in known if each in name), "bfloat16")


def ours(model: Model, precision: Precision) -> Encode:
    """This package: one packed batch of all sequences, whatever the batch size."""
    encoder = Encoder.from_pretrained(model.folder, precision=precision)

    def encode(sequences: Sequences, _: int | None) -> list[Tensor]:
        batch = PackedBatch.from_sequences(sequences)
        with torch.inference_mode():
            return list(batch.split(encoder(batch)))

    return encode


def padded(run: Callable[[Tensor, Tensor], Tensor]) -> Encode:
    """A peer that takes padded batches.

    run: ids and mask, (rows, columns) int64 each, to (rows, columns, hidden_size).
    """

    def encode(sequences: Sequences, batch_size: int | None) -> list[Tensor]:
        outputs: list[Tensor] = [torch.empty(0)] * len(sequences)
        for group in groups([len(sequence) for sequence in sequences], batch_size):
            ids, mask = pad([sequences[index] for index in group])
            for index, states in zip(group, run(ids, mask), strict=True):
                outputs[index] = states[: len(sequences[index])]
        return outputs

    return encode


def groups(lengths: Sequence[int], batch_size: int | None) -> list[list[int]]:
    """Places of the sequences of each batch: longest first, or all as they come for None."""
    places = list(range(len(lengths)))
    if batch_size is None:
        return [places]
    places.sort(key=lambda place: -lengths[place])
    return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]


def pad(sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Ids and mask, (rows, columns) int64 each, padded on the right."""
    longest = max(map(len, sequences))
    rows = [[*sequence, *[PADDING_ID] * (longest - len(sequence))] for sequence in sequences]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return torch.tensor(rows), (torch.arange(longest) < lengths[:, None]).long()


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far an engine's output lies from the reference.

    max_error, rms_error: over all entries; min_cosine: over all tokens.
    """

    max_error: float
    rms_error: float
    min_cosine: float


def distance(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> Distance:
    """Compare hidden states."""
    found, expected = (torch.cat(list(each)).double() for each in (outputs, reference))
    error = found - expected
    return Distance(
        max_error=float(error.abs().max()),
        rms_error=float(error.square().mean().sqrt()),
        min_cosine=float(functional.cosine_similarity(found, expected, dim=1).min()),
    )
