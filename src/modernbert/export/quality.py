"""How an exported file compares with the model: differences, quality, and the report of both."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ExportError
from modernbert.export.source import ExportSource
from modernbert.model.encoder import Encoder
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pooling import Poolings, pool
from modernbert.model.pretrained import SavedModel

REPORT_FILE = "export.json"
# Relative to the largest output; two engines add numbers in different orders.
RELATIVE_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 2e-2
EngineRun = Callable[[Tensor, Tensor], list[np.ndarray]]
"""An engine with a file: ids and a mask of tokens, (rows, columns) each, to all outputs."""

_BATCHES = ((1,), (7, 64, 65), (129, 3, 130, 1), (200, 63), (400,))
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
    exact: EngineRun,
    narrow: EngineRun,
    texts: Sequence[str],
    sizes: tuple[float, float],
) -> Quality:
    """Compare the outputs of two files of one model on some texts.

    Args:
        source: The model that both files were exported from.
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
    source: ExportSource, exact: EngineRun, narrow: EngineRun, texts: Sequence[str]
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


def largest_difference(
    run: EngineRun, model: SavedModel, *, tolerance: float = RELATIVE_TOLERANCE
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


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and how it compares with the model.

    Attributes:
        folder: The folder that was written.
        file: The file in it, relative to the folder.
        kind: transformers' name of the model's class.
        outputs: The names of the outputs.
        largest_difference: The largest difference from the model's own outputs, over ragged
            batches.
        opset: The version of the operators of an ONNX file.
        int8: The quality of the file with int8 weights, if one was requested.
        float16: The quality of the file in float16, if one was requested.
    """

    folder: Path
    file: Path
    kind: str
    outputs: tuple[str, ...]
    largest_difference: float
    opset: int | None = None
    int8: Quality | None = None
    float16: Quality | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.kind}: {self.folder / self.file}"
        yield f"largest difference from the model on ragged batches: {self.largest_difference:.1e}"
        for name, quality in (("int8", self.int8), ("float16", self.float16)):
            if quality is not None:
                yield f"{name}: {quality.float32_megabytes} MB became {quality.megabytes} MB"
                yield (
                    f"{name}: {quality.measure} with float32 {quality.mean:.4f} on average, "
                    f"{quality.least:.4f} at least, over {quality.num_texts} texts"
                )

    def content(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "file": self.file.as_posix()}

    def store(self, folder: Path, packages: Mapping[str, Any]) -> None:
        """Write the report into a folder, with the versions of the packages that made the files."""
        versions = {name: version(name) for name in ("torch", *packages)}
        content = {**self.content(), "packages": versions}
        del content["folder"]
        (folder / REPORT_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
