"""Spilled runs: tokenized documents on their way from the corpus to the shards.

Every document has a random 64-bit key, and the order of the keys is the order of the shards. A
run is a bounded number of a unit's documents, sorted by key, in one file: their keys (uint64),
their lengths in tokens (uint32) and their tokens. A small JSON file, written after it, makes the
run count; another one makes the unit count as finished. Nothing else is believed after a crash.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from modernbert.data.records import Skipped
from modernbert.errors import RunError
from modernbert.files import write_whole
from modernbert.json_files import read_settings

RUN_TOKENS = 8_000_000
BUCKET_TOKENS = 16_000_000


@dataclass(frozen=True, kw_only=True)
class SpilledRun:
    """The account of one run.

    Attributes:
        num_read: How many documents of the unit had been read when the run was complete.
        tokenless: Documents read since the run before that have no tokens.
    """

    unit: int
    number: int
    num_documents: int
    num_tokens: int
    num_read: int
    tokenless: Skipped


class Spill:
    """The folder of the runs; `dtype` is that of the tokens."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder = folder
        self._dtype = np.dtype(dtype).newbyteorder("<")

    def as_tokens(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the ids, which must be in the vocabulary, in the type of the tokens."""
        return token_ids.astype(self._dtype, copy=False)

    def runs(self, unit: int) -> list[SpilledRun]:
        """Return the unit's runs that are on the disk, from the first one on."""
        runs: list[SpilledRun] = []
        while (path := self._path(unit, len(runs), "json")).exists():
            runs.append(read_settings(SpilledRun, path, error=RunError))
        return runs

    def write_run(self, run: SpilledRun, keys: np.ndarray, documents: Sequence[np.ndarray]) -> None:
        """Store one run; keys: (num_documents,) uint64 in the order of the documents."""
        order = np.argsort(keys, kind="stable")
        lengths = np.array([len(document) for document in documents], dtype="<u4")
        tokens = np.concatenate([documents[index] for index in order])
        content = (keys[order].astype("<u8"), lengths[order], self.as_tokens(tokens))
        write_whole(self._path(run.unit, run.number, "run"), *(part.data for part in content))
        facts = json.dumps(asdict(run)).encode()
        write_whole(self._path(run.unit, run.number, "json"), facts)

    def finished(self, unit: int) -> Skipped | None:
        """Return what the unit skipped, when it is finished; otherwise None."""
        path = self._finished_path(unit)
        return read_settings(Skipped, path, error=RunError) if path.exists() else None

    def finish_unit(self, unit: int, skipped: Skipped) -> None:
        """Note that all of the unit's runs are stored."""
        write_whole(self._finished_path(unit), json.dumps(asdict(skipped)).encode())

    def read(self, run: SpilledRun, first: int, stop: int, first_token: int) -> "Slice":
        """Return the run's documents from `first` to before `stop`; the first begins at a token."""
        lengths = self._map(run, "<u4", 8 * run.num_documents, run.num_documents)[first:stop]
        num_tokens = int(lengths.sum(dtype=np.int64))
        at = 12 * run.num_documents + first_token * self._dtype.itemsize
        return Slice(
            keys=np.array(self._map(run, "<u8", 0, run.num_documents)[first:stop]),
            lengths=np.array(lengths, dtype=np.int64),
            tokens=np.fromfile(
                self._path(run.unit, run.number, "run"), self._dtype, num_tokens, offset=at
            ),
        )

    def count_below(self, run: SpilledRun, key: int) -> int:
        """Return how many of the run's documents have a smaller key."""
        if key >= 1 << 64:
            return run.num_documents
        keys = self._map(run, "<u8", 0, run.num_documents)
        return int(np.searchsorted(keys, np.uint64(key)))

    def _map(self, run: SpilledRun, dtype: str, offset: int, count: int) -> np.ndarray:
        # Mapped anew each time and let go: pages that stay mapped would count as our memory.
        path = self._path(run.unit, run.number, "run")
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))

    def _path(self, unit: int, number: int, suffix: str) -> Path:
        return self.folder / f"unit-{unit:06d}-{number:04d}.{suffix}"

    def _finished_path(self, unit: int) -> Path:
        return self.folder / f"unit-{unit:06d}.json"


@dataclass(frozen=True)
class Slice:
    """Documents in the order of their keys.

    Attributes:
        keys: (n,) uint64. lengths: (n,) int64, in tokens. tokens: (sum of lengths,).
    """

    keys: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray


def document_keys(seed: int, unit: int, first: int, stop: int) -> np.ndarray:
    """(stop - first,) uint64. The keys of a unit's documents of these numbers.

    They depend on seed, unit and number alone: 64 bits of PCG64DXSM for each (P appendix C.1
    tells why the generator of a shuffle deserves care).
    """
    generator = np.random.PCG64DXSM(np.random.SeedSequence((seed, unit)))
    if first:
        generator.advance(first)
    return generator.random_raw(stop - first)


def shuffled(spill: Spill, runs: Sequence[SpilledRun]) -> Iterator[tuple[SpilledRun, np.ndarray]]:
    """Yield all documents of the runs, as run and tokens, in the order of their keys.

    Equal keys are kept in the order of the runs. Reads as many documents at once as hold about
    `BUCKET_TOKENS` tokens.
    """
    num_tokens = sum(run.num_tokens for run in runs)
    num_buckets = 1 + num_tokens // BUCKET_TOKENS
    firsts, first_tokens = [0] * len(runs), [0] * len(runs)
    for bucket in range(1, num_buckets + 1):
        bound = (bucket << 64) // num_buckets
        slices = []
        for index, run in enumerate(runs):
            stop = spill.count_below(run, bound)
            slices.append(spill.read(run, firsts[index], stop, first_tokens[index]))
            firsts[index] = stop
            first_tokens[index] += len(slices[-1].tokens)
        for index, tokens in _in_key_order(slices):
            yield runs[index], tokens


def _in_key_order(slices: Sequence[Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """The index of its slice and the tokens of each document."""
    keys = np.concatenate([piece.keys for piece in slices])
    origins = np.repeat(np.arange(len(slices)), [len(piece.keys) for piece in slices])
    starts = np.concatenate([np.cumsum(piece.lengths) - piece.lengths for piece in slices])
    lengths = np.concatenate([piece.lengths for piece in slices])
    order = np.argsort(keys, kind="stable")
    for origin, start, length in zip(
        origins[order].tolist(), starts[order].tolist(), lengths[order].tolist(), strict=True
    ):
        yield origin, slices[origin].tokens[start : start + length]
