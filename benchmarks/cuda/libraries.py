"""Sections `transformers` and `inference`: both sides in one run, on equal weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.cuda.bench import (
    MASKED_SHARE,
    Bench,
    Figures,
    Mix,
    Rows,
    TrainingStep,
    fastest,
    theirs,
)
from benchmarks.cuda.contestants import ROWS, Contestants
from benchmarks.engines import groups, pad

_INFERENCE_MIXES = ("512 fixed", "512 ragged", "8192 fixed", "8192 ragged")
_BATCHES = 4


def transformers(bench: Bench) -> Rows:
    """Training steps of transformers' padded model at its best batch size, beside ours."""
    rows = bench.rows()
    for size in bench.sizes:
        model = bench.model(size)
        step = TrainingStep(bench, model)
        their_step = _TheirStep(theirs(bench, model, "AutoModelForMaskedLM"))
        for name, mix in bench.mixes("1024 ragged", "8192 ragged").items():
            lengths = mix.lengths(bench.tokens(size))
            own = sum(lengths) / bench.time(partial(step, bench.batch(size, mix)))
            sequences = bench.sequences(lengths, bench.config(size).vocab_size)
            rows[f"{size} {name}"] = _compared(own, *_best(bench, their_step, sequences))
        del step, their_step, model
    return rows


def inference(bench: Bench) -> Rows:
    """Vectors of many texts in bfloat16, everybody in turn: the paper's workloads, and queries."""
    rows = bench.rows()
    for size in bench.sizes:
        contestants, tokens = Contestants(bench, size), bench.tokens(size)
        vocab_size = bench.config(size).vocab_size
        mixes = {**bench.mixes(*_INFERENCE_MIXES), "queries": Mix(64, 16, 8)}
        for name, mix in mixes.items():
            total = tokens // 8 if name == "queries" else (1 if bench.tiny else _BATCHES) * tokens
            sequences = bench.sequences(mix.lengths(total), vocab_size)
            found = contestants.compare(sequences, tokens=tokens)
            if name.endswith("ragged"):
                fixed = rows[f"{size} {name.replace('ragged', 'fixed')}"]
                found["of fixed"] = float(found["ours tokens/s"]) / float(fixed["ours tokens/s"])
            rows[f"{size} {name}"] = found
        del contestants
    return rows


def _compared(own: float, rows: int, speed: float) -> Figures:
    return {
        "ours tokens/s": own,
        "transformers tokens/s": speed,
        "rows a batch": rows,
        "ratio": own / speed,
    }


def _best(
    bench: Bench,
    run: Callable[[torch.Tensor, torch.Tensor], object],
    sequences: Sequence[Sequence[int]],
) -> tuple[int, float]:
    """The batch size that is fastest, and real tokens a second with it."""
    lengths = [len(sequence) for sequence in sequences]

    def seconds(size: int) -> float:
        batches = [
            tuple(each.to(bench.device) for each in pad([sequences[place] for place in places]))
            for places in groups(lengths, size)
        ]
        return bench.time(lambda: [run(*each) for each in batches], warm_up=1)

    size, best = fastest(seconds, ROWS[: 1 if bench.tiny else None])
    return size, sum(lengths) / best


class _TheirStep:
    """Forward, backward and the update by torch's AdamW, fused where that exists."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, next(model.parameters()).device
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        drawn = torch.rand(ids.shape, device=self.device) < MASKED_SHARE
        labels = ids.where(drawn & mask.bool(), -100)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
