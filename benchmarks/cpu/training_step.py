"""Claim: a step of pretraining costs a fraction of transformers', and its gradients are the same.

    python -m benchmarks.cpu.training_step --batch ragged
    python -m benchmarks.cpu.training_step --batch blocks --size tiny --update

A step is the forward and the backward of the masked-token loss, without dropout; with `--update`
everyone's optimizer follows: StableAdamW here, torch's fused AdamW there. Ours sends masked rows
alone through the vocabulary; transformers does so with `sparse_prediction` only, which is off as it
comes. In `blocks` transformers has the same tokens in rows of 512 without padding, in which
documents see each other, as its own example of pretraining has them.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import command, results
from benchmarks.cpu.comparison import speedups, tell, timings
from benchmarks.masked_step import masked_batch, masked_step
from benchmarks.models import draw_weights
from benchmarks.timing import interleave
from modernbert.data.collate import MaskedBatch
from modernbert.files import new_folder
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.training.optimizer import StableAdamW, parameter_groups

_BLOCK = 512
# Width, and layers where none are asked for.
SIZES: Mapping[str, tuple[Mapping[str, int], int]] = {
    "tiny": (
        {"hidden_size": 256, "intermediate_size": 384, "num_heads": 4, "vocab_size": 8_192},
        6,
    ),
    "384": ({"hidden_size": 384, "intermediate_size": 576, "num_heads": 6}, 12),
    "base": ({}, 11),
}

# 16 lengths spread evenly up to 512, 4,262 tokens in all, which pad to 8,192.
BATCHES: Mapping[str, tuple[int, ...]] = {
    "ragged": (*range(26, 475, 32), 512),
    "blocks": (512, 301, 77, 260, 410, 33, 198, 257),  # four blocks
    "long": (8_192, 3_000, 1_200, 500),
    "smoke": (40, 12),
}


class Example(NamedTuple):
    """The same masked tokens twice.

    batch: packed.
    ids, mask, labels: (rows, columns) int64; labels are -100 where nothing is asked.
    """

    batch: MaskedBatch
    ids: Tensor
    mask: Tensor
    labels: Tensor


def example(
    lengths: Sequence[int], *, seed: int = 0, blocks: bool = False, vocab_size: int = 50_368
) -> Example:
    """Random ids of these lengths, with 31% of them asked for; padded rows, or full blocks."""
    masked = masked_batch(lengths, seed=seed, vocab_size=vocab_size)
    packed, total = masked.batch, masked.batch.total_tokens
    labels = torch.full((total,), -100).index_copy(0, masked.masked_indices, masked.labels)
    present = torch.ones(total, dtype=torch.int64)
    if blocks:
        rows = (each.view(-1, _BLOCK) for each in (packed.token_ids, present, labels))
        return Example(masked, *rows)
    return Example(
        masked,
        packed.to_padded(padding_value=0),
        packed.to_padded(present),
        packed.to_padded(labels, padding_value=-100),
    )


def step(model: Any, example: Example, dtype: torch.dtype) -> Tensor:
    """The mean loss of the masked rows, ours or transformers', with gradients in the parameters."""
    if isinstance(model, MaskedLanguageModel):
        return masked_step(model, example.batch, dtype)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss: Tensor = model(
            input_ids=example.ids, attention_mask=example.mask, labels=example.labels
        ).loss
    loss.backward()
    return loss.detach()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(
        __doc__,
        rounds=3,
        seconds=240,
        layers=(int, "layers; by the size when absent"),
        update=(False, "with everyone's optimizer"),
        peers=(str, "some of the names, by commas; all that fit when absent"),
    )
    made.add_argument("--batch", choices=BATCHES, default="ragged")
    made.add_argument("--size", choices=SIZES, default="384", help="width, heads and vocabulary")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one batch and write it; 1 if the losses or gradients are not equal."""
    options = parser().parse_args(arguments)
    options.layers = options.layers or SIZES[options.size][1]
    size = "" if options.size == "384" else f"-{options.size}"
    path = results.on_this_cpu(f"training-step{size}-{options.batch}")
    result = command.measured("training_step", measure, options, path)
    tell(f"{result['batch']['total_tokens']} tokens; {result['model']}", result)
    return 0 if all(result["checks"].values()) else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Compare a step of both sides, then time everyone's if they are equal."""
    config = _config(options)
    batch = example(
        BATCHES[options.batch], blocks=options.batch == "blocks", vocab_size=config.vocab_size
    )
    checks = check(options)
    found = {
        "model": f"width {config.hidden_size}, {options.layers} layers, vocabulary "
        f"{config.vocab_size:,}, random weights",
        "with_update": options.update,
        "batch": {
            "name": options.batch,
            "lengths": BATCHES[options.batch],
            "total_tokens": batch.batch.batch.total_tokens,
            "masked": batch.batch.num_masked,
            "padded_tokens": batch.ids.numel(),
        },
        "checks": checks,
    }
    is_equal = all(checks.values())
    return {**found, **_timed(_turns(batch, options), batch, options)} if is_equal else found


def _turns(batch: Example, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """A call for everyone, which ends with the model's own optimizer where that is asked for.

    Dense logits of the long batch would take more memory than there is, and blocks have no padding.
    """
    names = ["sparse"] if options.batch in ("long", "blocks") else ["sparse", "dense"]
    models: dict[str, Any] = {"ours": _our_model(options)}
    models |= {
        f"transformers {name}": _their_model(options, sparse=name == "sparse") for name in names
    }
    turns: dict[str, Callable[[], object]] = {}
    for label, dtype in _formats().items():
        for name, model in models.items():
            turn = partial(step, model, batch, dtype)
            turns[f"{name} {label}"] = _with_update(model, turn) if options.update else turn
    wanted = options.peers.split(",") if options.peers else turns
    return {name: turns[name] for name in wanted}


def _formats() -> dict[str, torch.dtype]:
    """What is trained in here: bfloat16 only where the CPU has units for it."""
    formats = {"float32": torch.float32}
    return {**formats, "bfloat16": torch.bfloat16} if results.has_bfloat16_units() else formats


def _with_update(model: Any, turn: Callable[[], object]) -> Callable[[], object]:
    update: Callable[[], object]
    if isinstance(model, MaskedLanguageModel):
        update = StableAdamW(parameter_groups(model, 1e-5), peak_learning_rate=1e-9).step
    else:
        update = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True).step

    def whole() -> None:
        turn()
        update()

    return whole


def check(options: argparse.Namespace) -> dict[str, bool]:
    """Loss and gradients of a small batch against transformers in float32."""
    batch = example((150, 70, 9), seed=1, vocab_size=_config(options).vocab_size)
    ours, theirs = _our_model(options), _their_model(options, sparse=True)
    expected = step(theirs, batch, torch.float32)
    wanted = _gradients(theirs)
    loss = step(ours, batch, torch.float32)
    checks = {
        "float32 loss within 1e-5": bool((loss - expected).abs() <= 1e-5 * expected.abs()),
        "float32 gradients within 1e-4": _difference(_gradients(ours), wanted) <= 1e-4,
    }
    if "bfloat16" in _formats():
        step(ours, batch, torch.bfloat16)
        own = _difference(_gradients(ours), wanted)
        step(theirs, batch, torch.bfloat16)
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


def _config(options: argparse.Namespace) -> EncoderConfig:
    numbers: dict[str, Any] = dict(SIZES[options.size][0])
    if "vocab_size" in numbers:
        names = ("unk", "cls", "sep", "pad", "mask")
        numbers |= {f"{name}_token_id": index for index, name in enumerate(names)}
    return EncoderConfig(layer_kinds=layer_kinds(options.layers), **numbers)


def _our_model(options: argparse.Namespace) -> MaskedLanguageModel:
    return draw_weights(MaskedLanguageModel(_config(options)))


def _their_model(options: argparse.Namespace, *, sparse: bool) -> Any:
    from transformers import AutoModelForMaskedLM

    folder = options.cache / f"training-{options.size}-{options.layers}"
    if not folder.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as fresh:
            _our_model(options).save_pretrained(fresh)
    return AutoModelForMaskedLM.from_pretrained(
        folder, attn_implementation="sdpa", sparse_prediction=sparse
    ).train()


def _timed(
    turns: Mapping[str, Callable[[], object]], batch: Example, options: argparse.Namespace
) -> dict[str, Any]:
    for turn in turns.values():
        turn()
    seconds = interleave(
        turns,
        rounds=options.rounds,
        budget_seconds=options.seconds,
        clock=command.clock(options),
    )
    tokens = batch.batch.batch.total_tokens
    return {"timings": timings(seconds, tokens), "speedups": speedups(seconds)}


if __name__ == "__main__":
    sys.exit(main())
