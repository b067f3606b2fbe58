"""Claim: a step of pretraining costs a fraction of a padded one, and its gradients are the same.

    python -m benchmarks.cpu.training_step --batch ragged

A step is the forward and the backward of the masked-token loss; the optimizer, alike for everyone
and small beside it, is left out, and so is dropout. Ours sends masked rows alone through the
vocabulary; transformers does so with `sparse_prediction` only, which is off as it comes.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cpu import command, results
from benchmarks.cpu.models import draw_weights
from benchmarks.cpu.timing import interleave, speedup
from benchmarks.cpu.workloads import token_ids
from modernbert.batch import PackedBatch
from modernbert.files import new_folder
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.vocabulary_loss import vocabulary_cross_entropy

MASKED_SHARE = 0.31
_WIDTH = {"hidden_size": 384, "intermediate_size": 576, "num_heads": 6}

# 16 lengths spread evenly up to 512, 4,262 tokens in all, which pad to 8,192.
BATCHES: Mapping[str, tuple[int, ...]] = {
    "ragged": (*range(26, 475, 32), 512),
    "long": (8_192, 3_000, 1_200, 500),
    "smoke": (40, 12),
}


class Example(NamedTuple):
    """A padded batch with masked places, and the same packed.

    ids, mask, labels: (rows, columns) int64; labels are -100 where nothing is asked.
    rows, targets: (num_masked,) int64 places in the packed batch, and what stood there.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    batch: PackedBatch
    rows: Tensor
    targets: Tensor


def example(lengths: Sequence[int], *, seed: int = 0) -> Example:
    """Random ids of these lengths, with 31% of them asked for."""
    batch = PackedBatch.from_sequences(token_ids(lengths, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.rand(batch.total_tokens, generator=generator) < MASKED_SHARE).nonzero().flatten()
    targets = batch.token_ids[rows]
    labels = torch.full((batch.total_tokens,), -100).index_copy(0, rows, targets)
    present = torch.ones(batch.total_tokens, dtype=torch.int64)
    return Example(
        ids=batch.to_padded(padding_value=0),
        mask=batch.to_padded(present),
        labels=batch.to_padded(labels, padding_value=-100),
        batch=batch,
        rows=rows,
        targets=targets,
    )


def our_step(model: MaskedLanguageModel, example: Example, dtype: torch.dtype) -> Tensor:
    """The mean loss of the masked rows, with gradients left in the parameters."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        predictions = model.head(model.encoder(example.batch).index_select(0, example.rows))
        loss = vocabulary_cross_entropy(
            predictions, model.decoder_weight, model.decoder_bias, example.targets
        )
    loss = loss / len(example.rows)
    loss.backward()
    return loss.detach()


def their_step(model: Any, example: Example, dtype: torch.dtype) -> Tensor:
    """The same of transformers' model."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss: Tensor = model(
            input_ids=example.ids, attention_mask=example.mask, labels=example.labels
        ).loss
    loss.backward()
    return loss.detach()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(__doc__ or "", rounds=3, seconds=240)
    made.add_argument("--batch", choices=BATCHES, default="ragged")
    made.add_argument("--layers", type=int, default=12, help="layers of width 384")
    made.add_argument("--peers", help="some of the names, by commas; all that fit when absent")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one batch and write it; 1 if the losses or gradients are not equal."""
    options = parser().parse_args(arguments)
    command.use_threads(options)
    around = results.surroundings(num_threads=options.threads)
    batch = example(BATCHES[options.batch])
    steps = _steps(options)
    checks = check(options)
    result = {
        "benchmark": "training_step",
        **around,
        "model": f"width 384, {options.layers} layers, vocabulary 50,368, random weights",
        "batch": {
            "name": options.batch,
            "lengths": BATCHES[options.batch],
            "total_tokens": batch.batch.total_tokens,
            "masked": len(batch.rows),
            "padded_tokens": batch.ids.numel(),
        },
        "checks": checks,
    }
    if all(checks.values()):
        result |= _measure(steps, batch, options)
    path = options.out or results.FOLDER / f"training-step-{options.batch}.json"
    results.write(path, result)
    _tell(result)
    return 0 if all(checks.values()) else 1


def _steps(options: argparse.Namespace) -> dict[str, Callable[[Example], object]]:
    """A call for everyone; dense logits of the long batch would take more memory than there is."""
    ours = _our_model(options.layers)
    names = ["sparse", "dense"] if options.batch != "long" else ["sparse"]
    theirs = {name: _their_model(options, sparse=name == "sparse") for name in names}
    steps: dict[str, Callable[[Example], object]] = {}
    for label, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        steps[f"ours {label}"] = partial(our_step, ours, dtype=dtype)
        for name, model in theirs.items():
            steps[f"transformers {name} {label}"] = partial(their_step, model, dtype=dtype)
    wanted = options.peers.split(",") if options.peers else list(steps)
    return {name: step for name, step in steps.items() if name in wanted}


def check(options: argparse.Namespace) -> dict[str, bool]:
    """Loss and gradients of a small batch against transformers in float32."""
    batch = example((150, 70, 9), seed=1)
    ours, theirs = _our_model(options.layers), _their_model(options, sparse=True)
    expected = their_step(theirs, batch, torch.float32)
    wanted = _gradients(theirs)
    checks = {}
    loss = our_step(ours, batch, torch.float32)
    checks["float32 loss within 1e-5"] = bool((loss - expected).abs() <= 1e-5 * expected.abs())
    checks["float32 gradients within 1e-4"] = _difference(_gradients(ours), wanted) <= 1e-4
    our_step(ours, batch, torch.bfloat16)
    own = _difference(_gradients(ours), wanted)
    their_step(theirs, batch, torch.bfloat16)
    checks["bfloat16 gradients no further off than transformers"] = own <= _difference(
        _gradients(theirs), wanted
    )
    return checks


def _gradients(model: Any) -> Tensor:
    """All gradients in one row, but the embedding's, whose place in the order differs."""
    parts = [
        parameter.grad.flatten()
        for name, parameter in model.named_parameters()
        if "layers" in name and parameter.grad is not None
    ]
    return torch.cat(parts)


def _difference(gradients: Tensor, wanted: Tensor) -> float:
    """Relative, by the norms."""
    return float((gradients - wanted).norm() / wanted.norm())


def _config(num_layers: int) -> EncoderConfig:
    return EncoderConfig(layer_kinds=layer_kinds(num_layers), **_WIDTH)


def _our_model(num_layers: int) -> MaskedLanguageModel:
    return draw_weights(MaskedLanguageModel(_config(num_layers)))


def _their_model(options: argparse.Namespace, *, sparse: bool) -> Any:
    from transformers import AutoModelForMaskedLM

    folder = options.cache / f"training-{options.layers}"
    if not folder.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as fresh:
            _our_model(options.layers).save_pretrained(fresh)
    return AutoModelForMaskedLM.from_pretrained(
        folder, attn_implementation="sdpa", sparse_prediction=sparse
    ).train()


def _measure(
    steps: Mapping[str, Callable[[Example], object]], batch: Example, options: argparse.Namespace
) -> dict[str, Any]:
    warm_up = example((64, 20), seed=2)
    for step in steps.values():
        step(warm_up)
    turns: dict[str, Callable[[], object]] = {
        name: partial(step, batch) for name, step in steps.items()
    }
    seconds = interleave(turns, rounds=options.rounds, budget_seconds=options.seconds)
    return {
        "timings": {
            name: {
                "seconds": times,
                "median_seconds": median(times),
                "tokens_per_second": batch.batch.total_tokens / median(times),
            }
            for name, times in seconds.items()
        },
        "speedups": {
            name: {
                other: speedup(seconds[name], seconds[other])
                for other in seconds
                if not other.startswith("ours") and other.split()[-1] == name.split()[-1]
            }
            for name in seconds
            if name.startswith("ours")
        },
    }


def _tell(result: Mapping[str, Any]) -> None:
    print(f"{result['batch']['total_tokens']} tokens; {result['model']}")
    for name, passed in result["checks"].items():
        print(f"  {'equal' if passed else 'NOT EQUAL'}: {name}")
    for name, timing in result.get("timings", {}).items():
        print(f"  {name:32s} {timing['median_seconds']:8.2f} s")
    for name, against in result.get("speedups", {}).items():
        for other, factor in against.items():
            print(f"  {name} over {other}: {factor:.2f}")


if __name__ == "__main__":
    sys.exit(main())
