"""Sections `transformers` and `inference`: both sides in one run, on equal weights."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from benchmarks.cuda.bench import MASKED_SHARE, Bench, Figures, Rows, TrainingStep
from benchmarks.engines import groups, pad
from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.inference.batching import Work
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.pooling import pool
from modernbert.model.precision import PrecisionChoice

_BATCH_SIZES = (8, 32, 128)  # rows; the best counts
_INFERENCE_MIXES = ("512 fixed", "512 ragged", "8192 fixed", "8192 ragged")
_BATCHES = 4


class Ids(NamedTuple):
    """A text that has been encoded already."""

    token_ids: list[int]
    is_truncated: bool = False


def transformers(bench: Bench) -> Rows:
    """Training steps of transformers' padded model at its best batch size, beside ours."""
    rows: Rows = {}
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
    """Vectors of many texts in bfloat16: ours packed, theirs sorted and padded.

    Ours twice: `uncompiled`, and `ours`, compiled once for batches of all shapes, which is what
    `Embedder.compile` does.
    """
    rows: Rows = {}
    for size in bench.sizes:
        ours, theirs = _pair(bench, size, compiled=False)
        precision: PrecisionChoice = "bfloat16" if bench.is_cuda else "auto"
        plain, compiled = (deepcopy(ours.encoder).for_inference(precision) for _ in range(2))
        compiled.compile_for_inference()
        tokens = bench.tokens(size)
        for name, mix in bench.mixes(*_INFERENCE_MIXES).items():
            lengths = mix.lengths(_BATCHES * tokens)
            texts = [Ids(ids) for ids in bench.sequences(lengths, bench.config(size).vocab_size)]

            def speed(call: Callable[[], object], lengths: Sequence[int] = lengths) -> float:
                return sum(lengths) / bench.time(call)

            own, uncompiled = (
                speed(partial(_vectors_of, bench, each, texts, tokens))
                for each in (compiled, plain)
            )
            best = _best(bench, partial(_encode_padded, theirs), [each.token_ids for each in texts])
            rows[f"{size} {name}"] = {**_compared(own, best), "uncompiled tokens/s": uncompiled}
        for kind in ("512", "8192"):
            fixed, ragged = (rows[f"{size} {kind} {each}"] for each in ("fixed", "ragged"))
            ragged["of fixed"] = float(ragged["ours tokens/s"]) / float(fixed["ours tokens/s"])
        del ours, theirs, plain, compiled
    return rows


def _compared(own: float, best: tuple[float, int]) -> Figures:
    speed, rows = best
    return {
        "ours tokens/s": own,
        "transformers tokens/s": speed,
        "rows a batch": rows,
        "ratio": own / speed if speed else float("inf"),
    }


def _pair(
    bench: Bench, size: str, *, compiled: bool | None = None
) -> tuple[MaskedLanguageModel, Any]:
    """Our model, and transformers' with the same weights on scaled dot-product attention."""
    from transformers import AutoModelForMaskedLM

    model = bench.model(size, compiled=compiled)
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
    for size in _BATCH_SIZES[: 1 if bench.tiny else None]:
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


@torch.inference_mode()
def _encode_padded(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    with torch.autocast(ids.device.type, torch.bfloat16):
        model.model(input_ids=ids, attention_mask=mask)


def _vectors_of(bench: Bench, encoder: Encoder, texts: Sequence[Ids], tokens: int) -> None:
    """As an embedder does it: packed on the host, a batch ahead, the vectors copied back."""

    def compute(batch: PackedBatch) -> Sequence[torch.Tensor]:
        return to_host(pool(encoder(batch).float(), batch, "cls")).unbind()

    work = Work(
        encode=list[Ids],
        compute=compute,
        size=lambda text: len(text.token_ids),
        device=bench.device,
        batch_tokens=tokens,
    )
    for _ in work.run(texts):
        pass
