"""int8 weights for ONNX Runtime, and how much they change what the model says.

The scales of weights are fixed, one a column; those of activations are found in each product, one
for the whole batch. So a text's result depends a little on its neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ExportError
from modernbert.export.source import ExportSource, quiet
from modernbert.export.verify import Session
from modernbert.model.encoder import Encoder
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pooling import Poolings, pool

_SAMPLE_TEXTS = 64
_SAMPLE_CHARACTERS = (80, 1_500)
_TEXTS_AT_ONCE = 8
_MAX_SAMPLE_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Int8Quality:
    """The quantized file beside the float32 one.

    measure: `cosine` of texts' vectors, or `agreement`, the share of places with the same best
        output; for a model of one output the `correlation` of its numbers.
    mean, least: over the sample's texts.
    """

    measure: str
    mean: float
    least: float
    num_texts: int
    num_tokens: int
    megabytes: float
    float32_megabytes: float


def default_sample() -> list[str]:
    """Passages of Python's own manual, which each installation has.

    Raises:
        ExportError: this installation came without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ExportError("this Python came without its manual: give texts as a sample") from None
    low, high = _SAMPLE_CHARACTERS
    passages = (p.strip() for topic in sorted(topics) for p in topics[topic].split("\n\n"))
    long_enough = list(dict.fromkeys(p[:high] for p in passages if len(p) >= low))
    return long_enough[:: max(1, len(long_enough) // _SAMPLE_TEXTS)][:_SAMPLE_TEXTS]


def quantize(
    source: ExportSource, file: Path, quantized: Path, texts: Sequence[str]
) -> Int8Quality:
    """Write `quantized` from `file`, and compare the two on some texts."""
    from onnxruntime import quantization

    has_external_data = file.with_name(f"{file.name}.data").exists()
    with quiet():
        quantization.quantize_dynamic(
            file,
            quantized,
            # The embedding is looked up and not multiplied: there int8 would only lose.
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=has_external_data,
        )
    measure, scores, num_tokens = _compare(source, Session(file), Session(quantized), texts)
    return Int8Quality(
        measure=measure,
        mean=round(float(np.mean(scores)), 5),
        least=round(float(np.min(scores)), 5),
        num_texts=len(texts),
        num_tokens=num_tokens,
        megabytes=_megabytes(quantized),
        float32_megabytes=_megabytes(file),
    )


def _compare(
    source: ExportSource, exact: Session, narrow: Session, texts: Sequence[str]
) -> tuple[str, list[float], int]:
    """What is measured, its value for each text, and the tokens of all."""
    scores: list[float] = []
    numbers: list[tuple[float, float]] = []
    num_tokens = 0
    is_regression = isinstance(source.model, SequenceClassifier) and len(source.model.labels) == 1
    for token_ids, present in _batches(source, texts):
        num_tokens += int(present.sum())
        for outputs in zip(exact(token_ids, present), narrow(token_ids, present), strict=True):
            for row, mask in enumerate(present.numpy()):
                one, two = (output[row] for output in outputs)
                if is_regression:
                    numbers.append((float(one[0]), float(two[0])))
                elif isinstance(source.model, Encoder):
                    scores.append(_cosine(*(_vector(x, mask, source.pooling) for x in (one, two))))
                elif isinstance(source.model, SequenceClassifier):
                    scores.append(_agreement(one, two))
                else:
                    scores.append(_agreement(one[mask], two[mask]))
    if is_regression:
        return "correlation", [_correlation(numbers)], num_tokens
    return "cosine" if isinstance(source.model, Encoder) else "agreement", scores, num_tokens


def _batches(source: ExportSource, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of like length together: (rows, columns) ids and which are there."""
    limit = min(_MAX_SAMPLE_TOKENS, source.model.config.max_seqlen)
    encoded = sorted((source.tokenizer.encode(text)[:limit] for text in texts), key=len)
    for start in range(0, len(encoded), _TEXTS_AT_ONCE):
        batch = PackedBatch.from_sequences(encoded[start : start + _TEXTS_AT_ONCE])
        columns = torch.arange(batch.max_seqlen)
        yield batch.to_padded(), columns < batch.lengths[:, None]


def _vector(hidden: np.ndarray, mask: np.ndarray, pooling: Poolings) -> np.ndarray:
    rows = torch.from_numpy(hidden[mask])
    vector: np.ndarray = pool(rows, PackedBatch.from_sequences([[0] * len(rows)]), pooling)[
        0
    ].numpy()
    return vector


def _cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))


def _agreement(one: np.ndarray, two: np.ndarray) -> float:
    """The share of equal best outputs: of a text's labels, of each token's, or of its places."""
    return float((one.argmax(-1) == two.argmax(-1)).mean())


def _correlation(numbers: Sequence[tuple[float, float]]) -> float:
    if len(numbers) < 2:
        return 1.0 if np.allclose(*numbers[0], rtol=0.05) else 0.0
    return float(np.corrcoef(np.array(numbers).T)[0, 1])


def _megabytes(file: Path) -> float:
    files = (file, file.with_name(f"{file.name}.data"))
    return round(sum(each.stat().st_size for each in files if each.exists()) / 1e6, 1)
