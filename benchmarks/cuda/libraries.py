"""Sections `transformers` and `inference`: both sides in one run, on equal weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.cuda.bench import MASKED_SHARE, Bench, Figures, Mix, Rows, TrainingStep
from benchmarks.cuda.contestants import ROWS, Contestants
from benchmarks.engines import groups, pad
from modernbert.model.heads import MaskedLanguageModel

_INFERENCE_MIXES = ("512 fixed", "512 ragged", "8192 fixed", "8192 ragged")
_BATCHES = 4


def transformers(bench: Bench) -> Rows:
    """Training steps of transformers' padded model at its best batch size, beside ours."""
    rows = bench.rows()
    for size in bench.sizes:
        ours, theirs = _pair(bench, size)
        step, their_step = TrainingStep(bench, ours), _TheirStep(theirs)
        for name, mix in bench.mixes("1024 ragged", "8192 ragged").items():
            lengths = mix.lengths(bench.tokens(size))
            own = sum(lengths) / bench.time(partial(step, bench.batch(size, mix)))
            sequences = bench.sequences(lengths, bench.config(size).vocab_size)
            best = _best(bench, their_step, sequences)
            rows[f"{size} {name}"] = _compared(own, best)
        del step, their_step, ours, theirs
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


def _compared(own: float, best: tuple[float, int]) -> Figures:
    speed, rows = best
    return {
        "ours tokens/s": own,
        "transformers tokens/s": speed,
        "rows a batch": rows,
        "ratio": own / speed if speed else float("inf"),
    }


def _pair(bench: Bench, size: str) -> tuple[MaskedLanguageModel, Any]:
    """Our model, and transformers' with the same weights on scaled dot-product attention."""
    from transformers import AutoModelForMaskedLM

    model = bench.model(size)
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        theirs = AutoModelForMaskedLM.from_pretrained(
            Path(folder) / "model", attn_implementation="sdpa"
        )
    return model, theirs.to(bench.device)


def _best(
    bench: Bench,
    run: Callable[[torch.Tensor, torch.Tensor], object],
    sequences: Sequence[Sequence[int]],
) -> tuple[float, int]:
    """Real tokens a second with the batch size that is fastest, and that size."""
    found = [(0.0, 0)]
    lengths = [len(sequence) for sequence in sequences]
    for size in ROWS[: 1 if bench.tiny else None]:
        batches = [
            tuple(each.to(bench.device) for each in pad([sequences[place] for place in places]))
            for places in groups(lengths, size)
        ]

        def all_batches(batches: Any = batches) -> None:
            for ids, mask in batches:
                run(ids, mask)

        try:
            found.append((sum(lengths) / bench.time(all_batches, warm_up=1), size))
        except torch.OutOfMemoryError:
            break
        if found[-1] < max(found):  # more rows only cost more padding
            break
    return max(found)


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
