"""Vectors in fewer bytes: int8 with a scale for each, or one bit a number."""

import numpy as np

_WORD_BITS = 64
_BITS_OF_BYTE = np.array([value.bit_count() for value in range(256)], np.uint8)


def to_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers from -127 to 127, and what 1 stands for in each row.

    vectors: (n, dim) float32.
    Returns (n, dim) int8 and (n, 1) float32.

    >>> codes, scales = to_int8(np.array([[0.5, -1.0, 0.0]], np.float32))
    >>> codes.tolist(), round(1 / float(scales[0, 0]))
    ([[64, -127, 0]], 127)
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
    return np.rint(vectors / scales).astype(np.int8), scales


def to_bits(vectors: np.ndarray) -> np.ndarray:
    """The signs of the numbers, 1 for those above 0, in words of 64 bits.

    vectors: (n, dim) float32.
    Returns (n, ceil(dim / 64)) uint64.
    """
    padding = -vectors.shape[1] % _WORD_BITS
    signs = np.pad(vectors > 0, ((0, 0), (0, padding)))
    return np.packbits(signs, axis=1).view(np.uint64)


def scores_of_bits(query_bits: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """How many bits differ, negative: (m, n) float32.

    query_bits: (m, words) uint64.
    bits: (n, words) uint64.
    """
    scores = np.empty((len(query_bits), len(bits)), np.float32)
    for query, row in zip(query_bits, scores, strict=True):
        np.negative(count_bits(bits ^ query), out=row)
    return scores


def count_bits(words: np.ndarray) -> np.ndarray:
    """How many bits of each row are set: (n,) float32.

    words: (n, words) uint64.

    >>> count_bits(np.array([[0, 1], [7, 2**63]], np.uint64)).tolist()
    [1.0, 4.0]
    """
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        counts = np.bitwise_count(words)
    else:
        counts = _BITS_OF_BYTE[np.ascontiguousarray(words).view(np.uint8)]
    sums: np.ndarray = counts.sum(axis=1, dtype=np.float32)
    return sums
