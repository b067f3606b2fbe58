"""The options of `Embedder.encode`: those of sentence-transformers, with the same meaning.

They say how texts are read (`StreamOptions`) and what form the results have (`EncodeOptions`).
"""

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from modernbert.display import open_bar
from modernbert.errors import InputError
from modernbert.inference.batching import Observer, Progress, batch_tokens_for, require_known

OutputValue = Literal["sentence_embedding", "token_embeddings"]
VectorPrecision = Literal["float32", "int8", "uint8", "binary", "ubinary"]

_NUM_STEPS = 255  # of an 8-bit number


class StreamOptions(TypedDict, total=False):
    """How texts become vectors.

    Attributes:
        prompt: A text to put before each text; it takes precedence over `prompt_name`.
        prompt_name: The name of one of the model's prompts.
        normalize_embeddings: Whether to scale each vector to length 1, after `truncate_dim`.
        truncate_dim: The number of leading dimensions to keep, for a model that was trained for it.
        batch_size: Compute at most as many tokens at once as so many texts of full length have.
            Shorter texts share a batch in larger numbers, which needs no more memory.
        batch_tokens: The most tokens to compute at once.
        device: The device of the model, for code that names it; the model is not moved.
        on_progress: Called with the progress after every batch.
    """

    prompt: str | None
    prompt_name: str | None
    normalize_embeddings: bool
    truncate_dim: int | None
    batch_size: int | None
    batch_tokens: int | None
    device: str | torch.device | None
    on_progress: Observer | None


class EncodeOptions(StreamOptions, total=False):
    """How texts become vectors, and in what form these are returned.

    Attributes:
        output_value: `sentence_embedding` for a vector per text, `token_embeddings` for the vectors
            of its tokens, or None for a dictionary with both, its token ids and attention mask.
        precision: The numbers of the vectors. `int8` and `uint8` divide the range of each
            dimension, of all texts of the call together, in 255 steps; `binary` and `ubinary`
            keep the signs, eight of them in a byte, as int8 and as uint8.
        convert_to_numpy: Whether to return an array; if not, a list of tensors.
        convert_to_tensor: Whether to return one tensor, on the CPU.
        show_progress_bar: Whether to show a bar.
    """

    output_value: OutputValue | None
    precision: VectorPrecision
    convert_to_numpy: bool
    convert_to_tensor: bool
    show_progress_bar: bool | None


OF_RESULTS = EncodeOptions.__annotations__.keys() - StreamOptions.__annotations__.keys()
"""The options of `encode` alone."""


def check_options(options: StreamOptions, dim: int, device: torch.device) -> None:
    """Refuse options that are unknown or not valid.

    Args:
        options: The options of a call.
        dim: The number of dimensions of the model's vectors.
        device: The device of the model.

    Raises:
        InputError: An option is unknown or not valid.
    """
    require_known(options, StreamOptions)
    if (width := options.get("truncate_dim")) is not None:
        check_dim(width, dim)
    if (size := options.get("batch_size")) is not None and size < 1:
        raise InputError(f"batch_size: got {size}, expected 1 or more")
    if (asked := options.get("device")) is not None and not _is_same(asked, device):
        raise InputError(
            f"device: got {asked!r}, but the model is on {str(device)!r}; load it where it is to "
            "compute"
        )


def check_results(options: EncodeOptions) -> None:
    """Refuse an `output_value` or a `precision` that is not known.

    Raises:
        InputError: Either is not known.
    """
    choices = {
        "output_value": (*get_args(OutputValue), None),
        "precision": get_args(VectorPrecision),
    }
    for name, known in choices.items():
        value = options.get(name, known[0])
        if value not in known:
            raise InputError(f"{name}: got {value!r}, expected one of {', '.join(map(str, known))}")


def check_dim(width: int, dim: int) -> None:
    """Refuse a number of dimensions to keep that is not from 1 to `dim`.

    Raises:
        InputError: The number is out of this range.
    """
    if not 1 <= width <= dim:
        raise InputError(f"truncate_dim: got {width}, expected 1 to {dim}")


def _is_same(asked: Any, device: torch.device) -> bool:
    try:
        wanted = torch.device(asked)
    except (RuntimeError, TypeError):
        return False
    return wanted.type == device.type and wanted.index in (None, device.index or 0)


def tokens_at_once(options: StreamOptions, device: torch.device, max_seqlen: int) -> int | None:
    """Return the most tokens of a batch by `batch_tokens` or `batch_size`; None by default."""
    tokens, size = options.get("batch_tokens"), options.get("batch_size")
    if tokens is not None or size is None:
        return tokens
    return min(batch_tokens_for(device), size * max_seqlen)


@contextmanager
def watched(results: EncodeOptions, reading: StreamOptions, texts: Any) -> Iterator[StreamOptions]:
    """Give the options of reading an observer that draws a bar, where one is asked for."""
    if not results.get("show_progress_bar"):
        yield reading
        return
    observer, total = reading.get("on_progress"), len(texts) if isinstance(texts, Sized) else None
    bar = open_bar("encoding")

    def show(progress: Progress) -> None:
        bar.show("encoding", progress.texts, total, f"{progress.texts:,} texts")
        if observer is not None:
            observer(progress)

    try:
        yield {**reading, "on_progress": show}
    finally:
        bar.close()


def quantized(vectors: np.ndarray, precision: VectorPrecision) -> np.ndarray:
    """Round vectors to numbers of fewer bits, as sentence-transformers does.

    Args:
        vectors: (num_texts, dim) float32.
        precision: As in `EncodeOptions`.

    Returns:
        (num_texts, dim) int8 or uint8; (num_texts, ceil(dim / 8)) for the two binary ones.

    Raises:
        InputError: A single text has no range to divide.
    """
    if precision == "float32":
        return vectors
    if precision.endswith("binary"):
        bits = np.packbits(vectors > 0, axis=1)
        return bits if precision == "ubinary" else (bits ^ np.uint8(128)).view(np.int8)
    if len(vectors) == 1:
        raise InputError(
            f"precision: {precision} divides the range of each dimension, and one text has none; "
            "encode several at once, or use binary"
        )
    if not len(vectors):
        return vectors.astype(precision)
    lowest = vectors.min(axis=0)
    step = (vectors.max(axis=0) - lowest) / _NUM_STEPS
    levels: np.ndarray = np.clip(
        np.floor((vectors - lowest) / np.where(step == 0, 1, step)), 0, _NUM_STEPS
    )
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def as_asked(vectors: np.ndarray, options: EncodeOptions) -> np.ndarray | Tensor | list[Tensor]:
    """Return vectors as an array, a tensor or a list of tensors, as the options ask."""
    if options.get("convert_to_tensor", False):
        return torch.from_numpy(vectors)
    return vectors if options.get("convert_to_numpy", True) else list(torch.from_numpy(vectors))


def split_options(options: EncodeOptions) -> tuple[StreamOptions, EncodeOptions]:
    """Return the options of reading, and those of the results."""
    of_results: Any = {name: value for name, value in options.items() if name in OF_RESULTS}
    of_stream: Any = {name: value for name, value in options.items() if name not in OF_RESULTS}
    return of_stream, of_results
