"""Candidates for MaxSim: an encoding of fixed size for each document, whatever its length.

After MUVERA (arXiv 2405.19504): the space of token vectors is divided into clusters, a document is
encoded by what stands nearest in each cluster, and the product with a query's encoding approximates
MaxSim. MUVERA's clusters are random. Here they are k-means clusters of the index's own vectors, and
of each cluster one number is kept: the largest product of the document's vectors with the centroid.

A query's vectors are written as sums of a few centroids, so a search reads only their numbers, of
all documents. That is why the numbers of a cluster stand together in the file.

centroids.npy   (clusters, dim) float32, scaled so that products are from -127 to 127
encodings.npy   (clusters, documents) int8, the largest of these products
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.errors import InputError
from modernbert.inference.index_files import read_vectors, to_tensor
from modernbert.model.native.functions import weighted_rows

FILES = "centroids", "encodings"
MIN_DOCUMENTS_PER_CLUSTER = 8
"""Below this a segment has no encodings, as all of its documents are compared in no time."""

_DIM_PER_CENTROID = 4  # as many centroids as numbers would describe noise, and read more
_RIDGE = 1e-3
_SAMPLES_PER_CLUSTER = 64
_ROUNDS = 6
_MAX_CODE = 127
_WRITTEN_DOCUMENTS = 512
_BLOCK_SAMPLES = 8_192
_SAMPLE_STEP = 64


class Encodings:
    """The encodings of a segment's documents.

    Args:
        folder: Of the segment.
        count: How many documents it has.
        dim: How many numbers a vector has.

    Raises:
        InputError: Files that cannot be read or are of other sizes.
    """

    def __init__(self, folder: Path, count: int, dim: int) -> None:
        centroids, codes = (read_vectors(folder / f"{name}.npy") for name in FILES)
        sizes = (len(centroids), dim), (len(centroids), count)
        is_typed = centroids.dtype == np.float32 and codes.dtype == np.int8
        if not is_typed or (centroids.shape, codes.shape) != sizes:
            raise InputError(
                f"{folder}: the encodings are {centroids.shape} and {codes.shape} {codes.dtype}, "
                f"expected {sizes[0]} and {sizes[1]} int8; build the index anew"
            )
        self._centroids: Tensor = torch.from_numpy(np.array(centroids))
        self._codes: Tensor = to_tensor(codes)

    def nearest(self, query: np.ndarray, num: int, dead: np.ndarray | None) -> np.ndarray:
        """Find the documents that MaxSim should compare with a query: (num,) int64, ascending.

        Args:
            query: (num_vectors, dim) float32.
            num: How many; at most as many as there are documents.
            dead: (count,) bool, which documents count no more.
        """
        clusters, weights = self._weights(torch.from_numpy(query))
        scores = weighted_rows(self._codes, clusters, weights)
        if dead is not None:
            scores[torch.from_numpy(dead)] = -torch.inf
        found = _largest(scores, num)
        rows: np.ndarray = found[scores[found] > -torch.inf].sort().values.numpy()
        return rows

    def _weights(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Write the sum over a query's vectors as a sum over clusters: which, and how much of each.

        Each vector is approximated by its nearest centroids, by least squares.
        """
        num = min(-(-query.shape[1] // _DIM_PER_CENTROID), len(self._centroids))
        near = (query @ self._centroids.T).topk(num)
        basis = self._centroids[near.indices]  # (num_vectors, near, dim)
        gram = basis @ basis.mT
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean() * torch.eye(gram.shape[1])
        parts = torch.linalg.solve(gram + ridge, near.values[..., None])
        weights = torch.zeros(len(self._centroids))
        weights.index_add_(0, near.indices.flatten(), parts.flatten())
        clusters = near.indices.unique()
        return clusters, weights[clusters]


def _largest(scores: Tensor, num: int) -> Tensor:
    """The places of the largest scores, (num,) int64, in any order.

    A bound that a sample gives leaves few of many scores to be sorted.
    """
    sample = scores[::_SAMPLE_STEP]
    num_above = num // _SAMPLE_STEP * 5 // 4 + _SAMPLE_STEP
    if num_above < len(sample):
        places = (scores >= sample.topk(num_above).values[-1]).nonzero()[:, 0]
        if len(places) >= num:
            return places[scores[places].topk(num, sorted=False).indices]
    return scores.topk(num, sorted=False).indices


def write_encodings(folder: Path, num_clusters: int) -> None:
    """Write the encodings of the documents of a segment, unless they are too few to need any.

    Args:
        folder: Of the segment, with its vectors.
        num_clusters: How many numbers encode a document.
    """
    ends = read_vectors(folder / "ends.npy")[:, 0]
    if len(ends) < MIN_DOCUMENTS_PER_CLUSTER * num_clusters:
        return
    stored = read_vectors(folder / "vectors.npy")
    scales = read_vectors(folder / "scales.npy") if stored.dtype == np.int8 else None

    def vectors(place: Any) -> np.ndarray:
        rows: np.ndarray = stored[place].astype(np.float32)
        return rows if scales is None else rows * scales[place]

    places = np.linspace(0, len(stored) - 1, num_clusters * _SAMPLES_PER_CLUSTER).astype(np.int64)
    samples = torch.from_numpy(vectors(np.unique(places)))
    longest = samples.norm(dim=1).max().clamp(min=1e-30)
    centroids = find_centroids(samples, num_clusters) * (_MAX_CODE / longest)
    np.save(folder / "centroids.npy", centroids.numpy())
    codes = np.lib.format.open_memmap(
        folder / "encodings.npy", mode="w+", dtype=np.int8, shape=(len(centroids), len(ends))
    )
    borders = np.concatenate([[0], ends])
    for start in range(0, len(ends), _WRITTEN_DOCUMENTS):
        some = borders[start : start + _WRITTEN_DOCUMENTS + 1]
        products = torch.from_numpy(vectors(slice(some[0], some[-1]))) @ centroids.T
        largest = np.maximum.reduceat(products.numpy(), some[:-1] - some[0], axis=0)
        rounded = np.rint(np.clip(largest, -_MAX_CODE, _MAX_CODE))
        codes[:, start : start + _WRITTEN_DOCUMENTS] = rounded.T
    codes.flush()


def find_centroids(vectors: Tensor, num: int) -> Tensor:
    """Find the centroids of clusters of vectors by k-means: (num, dim) float32, of length 1.

    Args:
        vectors: (n, dim) float32.
        num: How many clusters.
    """
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
    centroids = vectors[order[torch.arange(num) % len(vectors)]].clone()
    for _ in range(_ROUNDS):
        halves = centroids.square().sum(1) / 2
        blocks = vectors.split(_BLOCK_SAMPLES)
        nearest = torch.cat([(each @ centroids.T - halves).argmax(1) for each in blocks])
        sizes = torch.bincount(nearest, minlength=num)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        centroids = torch.where(sizes > 0, sums / sizes.clamp(min=1), centroids)
    return torch.nn.functional.normalize(centroids)
