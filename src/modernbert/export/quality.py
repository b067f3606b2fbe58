"""How much an export in a narrower format changes the model's outputs, measured on texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ExportError
from modernbert.export.source import ExportSource
from modernbert.export.verify import Run
from modernbert.model.encoder import Encoder
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pooling import Poolings, pool

_SAMPLE_TEXTS = 64
_SAMPLE_CHARACTERS = (80, 1_500)
_TEXTS_AT_ONCE = 8
_MAX_SAMPLE_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How a file of a narrower format compares with the float32 file.

    Attributes:
        measure: `cosine` of the texts' vectors; `agreement`, the fraction of places with the same
            best output; or `correlation` of the numbers of a regression.
        mean: The mean over the texts of the sample.
        least: The lowest value over them.
        num_texts: The number of texts.
        num_tokens: The number of their tokens.
        megabytes: The size of the narrower file, in MB of 10^6 bytes.
        float32_megabytes: The size of the float32 file, in MB.
    """

    measure: str
    mean: float
    least: float
    num_texts: int
    num_tokens: int
    megabytes: float
    float32_megabytes: float


def sample_texts(sample: Sequence[str] | None) -> list[str]:
    """Return the texts to measure on: those given, or passages of Python's manual.

    Raises:
        ExportError: There is no text.
    """
    texts = default_sample() if sample is None else list(sample)
    if not texts:
        raise ExportError("sample: got no text, expected some to measure the narrower format on")
    return texts


def default_sample() -> list[str]:
    """Return passages of Python's manual, which most installations include.

    Raises:
        ExportError: This installation does not include it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ExportError(
            "sample: this Python installation lacks its manual; pass texts of your own"
        ) from None
    low, high = _SAMPLE_CHARACTERS
    passages = (p.strip() for topic in sorted(topics) for p in topics[topic].split("\n\n"))
    long_enough = list(dict.fromkeys(p[:high] for p in passages if len(p) >= low))
    return long_enough[:: max(1, len(long_enough) // _SAMPLE_TEXTS)][:_SAMPLE_TEXTS]


def measure_quality(
    source: ExportSource,
    exact: Run,
    narrow: Run,
    texts: Sequence[str],
    sizes: tuple[float, float],
) -> Quality:
    """Compare the outputs of two files of one model on some texts.

    Args:
        source: The model.
        exact: Runs the float32 file.
        narrow: Runs the narrower one.
        texts: The texts to compare on.
        sizes: The sizes of the two files, in MB.

    Returns:
        How they compare.
    """
    measure, scores, num_tokens = _compare(source, exact, narrow, texts)
    return Quality(
        measure=measure,
        mean=round(float(np.mean(scores)), 5),
        least=round(float(np.min(scores)), 5),
        num_texts=len(texts),
        num_tokens=num_tokens,
        megabytes=sizes[1],
        float32_megabytes=sizes[0],
    )


def _compare(
    source: ExportSource, exact: Run, narrow: Run, texts: Sequence[str]
) -> tuple[str, list[float], int]:
    """Return what is measured, its value for each text, and the number of tokens."""
    scores: list[float] = []
    numbers: list[tuple[float, float]] = []
    num_tokens = 0
    is_regression = isinstance(source.model, SequenceClassifier) and len(source.model.labels) == 1
    for token_ids, present in batches(source, texts):
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


def batches(
    source: ExportSource, texts: Sequence[str], *, at_once: int = _TEXTS_AT_ONCE
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield texts of similar length together: (rows, columns) ids and where tokens are."""
    limit = min(_MAX_SAMPLE_TOKENS, source.model.config.max_seqlen)
    encoded = sorted((source.tokenizer.encode(text)[:limit] for text in texts), key=len)
    for start in range(0, len(encoded), at_once):
        batch = PackedBatch.from_sequences(encoded[start : start + at_once])
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
    """Return the fraction of equal best outputs: of a text, its tokens, or positions in it."""
    return float((one.argmax(-1) == two.argmax(-1)).mean())


def _correlation(numbers: Sequence[tuple[float, float]]) -> float:
    if len(numbers) < 2:
        return 1.0 if np.allclose(*numbers[0], rtol=0.05) else 0.0
    return float(np.corrcoef(np.array(numbers).T)[0, 1])


def megabytes(file: Path) -> float:
    """Return the size of a file with the file of weights beside it, in MB."""
    files = (file, file.with_name(f"{file.name}.data"), file.with_suffix(".bin"))
    return round(sum(each.stat().st_size for each in files if each.exists()) / 1e6, 1)
