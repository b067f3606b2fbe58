"""Who encodes: ours and transformers', in bfloat16 and on equal weights, timed in turn."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cuda.bench import Bench, Figures, fastest, theirs
from benchmarks.engines import groups, pad
from benchmarks.timing import interleave, speedup
from modernbert.batch import PackedBatch
from modernbert.devices import Underway, compile_layer, to_host
from modernbert.inference.batching import launch, packs
from modernbert.interop.accelerate import accelerate
from modernbert.model.choices import PrecisionChoice
from modernbert.model.encoder import Encoder
from modernbert.model.pooling import pool

Batches = Sequence[Sequence[list[int]]]
Vectors = Callable[[Batches], list[Tensor]]
ROWS = (8, 32, 128)
"""Texts of a padded batch; each padding contestant takes the number that it is fastest with."""

COSINE = 0.98  # at least, of vectors of queries in bfloat16 by different kernels
DOCUMENT_COSINE = 0.997
_ROUNDS = 3


class Contestants:
    """Everybody who encodes the models of one size; `eager` is transformers as it comes.

    sdpa is the attention of transformers' models. The compiled one is compiled layer by layer for
    batches of all shapes, as ours is; a graph of the whole model takes minutes to make.
    """

    def __init__(self, bench: Bench, size: str) -> None:
        self.bench = bench
        encoder = bench.model(size, compiled=False).encoder
        dtype = torch.bfloat16 if bench.is_cuda else torch.float32
        eager = theirs(bench, encoder, "AutoModel", dtype=dtype).eval().requires_grad_(False)
        compiled, packed = deepcopy(eager), accelerate(deepcopy(eager))
        for layer in compiled.layers:
            compile_layer(layer, "inductor" if bench.is_cuda else "eager", dynamic=True)
        precision: PrecisionChoice = "bfloat16" if bench.is_cuda else "auto"
        plain, self.ours = (deepcopy(encoder).for_inference(precision) for _ in range(2))
        self.ours.compile_for_inference()
        self.packed: Mapping[str, Vectors] = {
            "ours": partial(packed_vectors, bench, self.ours),
            "ours uncompiled": partial(packed_vectors, bench, plain),
        }
        self.padded: Mapping[str, Vectors] = {
            "eager": partial(padded_vectors, bench, eager),
            "compiled": partial(padded_vectors, bench, compiled),
            "accelerate": partial(padded_vectors, bench, packed),
        }

    def compare(
        self,
        sequences: Sequence[list[int]],
        *,
        rows: int | None = None,
        tokens: int | None = None,
        cosine: float = COSINE,
    ) -> Figures:
        """Texts a second of everybody, and how many times as fast ours are.

        Args:
            sequences: Of token ids.
            rows: Texts of a batch; None lets ours take `tokens` and each padding contestant the
                number of texts that it is fastest with.
            tokens: Tokens of a batch of ours, where `rows` is None.
            cosine: What the vectors of all must have with transformers' as it comes, at least.
        """
        lengths = [len(each) for each in sequences]
        own = groups(lengths, rows) if rows else list(packs(lengths, tokens or 32_768))
        turns: dict[str, Callable[[], list[Tensor]]] = {
            **{
                name: partial(encode, _batches(sequences, own))
                for name, encode in self.packed.items()
            },
            **{
                name: partial(encode, self._best(encode, sequences, rows))
                for name, encode in self.padded.items()
            },
        }
        found: Figures = {}
        # Everybody sorts texts by length in the same way.
        vectors = {name: torch.cat(call()) for name, call in turns.items()}
        agreed = all(_agree(each, vectors["eager"], cosine) for each in vectors.values())
        seconds = self._in_turn(turns)
        for name, each in seconds.items():
            found[f"{name} texts/s"] = len(sequences) / median(each)
        found["ours tokens/s"] = sum(lengths) / median(seconds["ours"])
        for name in ("eager", "compiled"):
            found[f"ours to {name}"] = speedup(seconds["ours"], seconds[name])
        found["accelerate to eager"] = speedup(seconds["accelerate"], seconds["eager"])
        return {**found, "ok": "yes" if agreed else "NO"}

    def _in_turn(self, turns: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        bench = self.bench

        def waited(call: Callable[[], object]) -> None:
            call()
            bench.synchronize()

        return interleave(
            {name: partial(waited, call) for name, call in turns.items()},
            rounds=1 if bench.tiny else _ROUNDS,
            budget_seconds=60.0,
            min_turn_seconds=0.0 if bench.tiny else bench.seconds / 5,
        )

    def _best(self, encode: Vectors, sequences: Sequence[list[int]], rows: int | None) -> Batches:
        """Batches of so many texts, or of as many as one pass is fastest with."""
        lengths = [len(each) for each in sequences]

        def batches_of(size: int) -> Batches:
            return _batches(sequences, groups(lengths, size))

        def seconds(size: int) -> float:
            batches = batches_of(size)
            encode(batches[:2])  # to warm up: the longest texts
            return self.bench.once(partial(encode, batches))

        choices = ROWS[: 1 if self.bench.tiny else None]
        return batches_of(rows or fastest(seconds, choices)[0])


def packed_vectors(bench: Bench, encoder: Encoder, batches: Batches) -> list[Tensor]:
    """Means of each batch, as an `Embedder` computes them: one batch is launched ahead."""

    def compute(batch: PackedBatch) -> Tensor:
        return to_host(pool(encoder(batch).float(), batch, "mean"))

    vectors: list[Tensor] = []
    ahead: deque[Underway[Any]] = deque()
    for batch in batches:
        ahead.append(launch(compute, batch, bench.device))
        if len(ahead) > 1:
            vectors.append(ahead.popleft().wait())
    return vectors + [each.wait() for each in ahead]


@torch.inference_mode()
def padded_vectors(bench: Bench, model: Any, batches: Batches) -> list[Tensor]:
    """The same of a padded model; read at the end, so that the device has always work."""
    vectors = []
    for batch in batches:
        ids, mask = pad(batch)
        if bench.is_cuda:
            ids, mask = ids.pin_memory(), mask.pin_memory()
        ids, mask = (each.to(bench.device, non_blocking=True) for each in (ids, mask))
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        vectors.append((hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))
    return [each.cpu() for each in vectors]


def _batches(sequences: Sequence[list[int]], places: Sequence[Sequence[int]]) -> Batches:
    return [[sequences[place] for place in batch] for batch in places]


def _agree(vectors: Tensor, expected: Tensor, cosine: float) -> bool:
    return bool(functional.cosine_similarity(vectors, expected).min() >= cosine)
