"""One arm with one seed, trained and scored in a process of its own.

    python -m benchmarks.recipe.training usual 0 --corpora FOLDER --runs FOLDER

The scores are in `scores.json` of the run's folder; a run that was stopped goes on.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import modernbert.tasks.pretraining.pretrain as pretraining
from benchmarks.command import bare_parser
from benchmarks.recipe.arms import ARMS, Arm, shared_recipe
from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.loader import held_out_batches
from modernbert.data.packing import PackingSettings
from modernbert.data.shards import ShardFolder
from modernbert.errors import GrowthWarning
from modernbert.files import write_whole
from modernbert.model.config import layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import grow
from modernbert.settings import parse
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tasks.pretraining.recipe_tables import merge
from modernbert.tokenizer.tokenizer import Tokenizer

BUCKETS = (0, 256, 512, 1_024, 2_048, 4_096, 8_192)
LONG = 8_192
_HELD_OUT_TOKENS = 80_000
_LONG_HELD_OUT_TOKENS = 250_000
_AVERAGED = (2, 3, 5, 8)


def train(arm: Arm, seed: int, corpora: Path, runs: Path, *, scale: float = 1.0) -> Path:
    """Train the arm, whose `start` must be there; the folder of the run.

    scale: of the numbers of tokens, for a trial.
    """
    folder = runs / arm.name / str(seed)
    recipe = _recipe(arm, seed, corpora, folder, runs, scale)
    if arm.joined:
        pretraining.collate = _collate_joined  # type: ignore[attr-defined]
    pretraining.pretrain(recipe)
    return folder


def _recipe(
    arm: Arm, seed: int, corpora: Path, folder: Path, runs: Path, scale: float
) -> PretrainingRecipe:
    names = ("books", "reviews") if arm.corpus == "mixed" else ("books",)
    mapping = merge(shared_recipe(seed=seed), arm.recipe)
    if arm.start is not None:
        start = runs / arm.start / str(seed) / "model"
        if arm.layer_map is not None:
            start = _grown(arm, start, mapping["model"], folder)
        kept = {k: v for k, v in mapping["model"].items() if k in ("max_seqlen", "global_theta")}
        mapping["model"] = {"start": str(start), **kept}
    paths = {
        "output": str(folder),
        "tokenizer": str(corpora / "tokenizer"),
        "sources": [{"shards": str(corpora / "shards" / f"{name}-train")} for name in names],
    }
    for table in (mapping["training"], mapping["training"]["schedule"]):
        for key in ("total_tokens", "warmup_tokens", "decay_tokens"):
            if key in table:
                table[key] = int(scale * table[key])
    return parse(PretrainingRecipe, {**mapping, **paths}, where=arm.name)


def _grown(arm: Arm, small: Path, sizes: Mapping[str, Any], folder: Path) -> Path:
    """The tiled model that the arm starts from, written once."""
    made = folder.with_name(f"{folder.name}-start")
    if not (made / "config.json").exists():
        assert arm.layer_map is not None
        model = MaskedLanguageModel.from_pretrained(small)
        config = replace(
            model.config,
            layer_kinds=layer_kinds(sizes["num_layers"]),
            **{k: sizes[k] for k in ("hidden_size", "intermediate_size", "num_heads")},
        )
        grow(model, config, layer_map=arm.layer_map).save_pretrained(made)
        Tokenizer.from_pretrained(small).save_pretrained(made)
    return made


def _collate_joined(*args: Any, **kwargs: Any) -> MaskedBatch:
    """`collate`, with every bin as one sequence: what packing without isolation does."""
    made = collate(*args, **kwargs)
    sizes = torch.tensor([0, *made.bin_tokens_each], dtype=torch.int32)
    batch = replace(
        made.batch,
        cu_seqlens=sizes.cumsum(0, dtype=torch.int32),
        max_seqlen=max(made.bin_tokens_each),
    )
    return replace(made, batch=batch)


def score(arm: Arm, folder: Path, corpora: Path) -> dict[str, Any]:
    """Held-out figures of a finished run; each document alone, 15% masked."""
    model = MaskedLanguageModel.from_pretrained(folder / "model")
    model.encoder.for_inference("float32")
    shards = {
        name: ShardFolder.open(corpora / "shards" / f"{name}-dev") for name in ("books", "reviews")
    }
    short = PackingSettings(max_seqlen=1_024, bin_tokens=4_096)
    scores: dict[str, Any] = {
        name: _mean(_losses(model, each, short, _HELD_OUT_TOKENS)[0])
        for name, each in shards.items()
    }
    scores["mixed"] = (scores["books"] + scores["reviews"]) / 2
    if arm.name == "usual" or arm.corpus == "books":
        scores["books_by_position"] = _by_position(model, shards["books"])
    if arm.name in ("usual", "constant"):
        scores["averages"] = _averages(folder, shards, short)
    return scores


@torch.no_grad()
def _losses(
    model: MaskedLanguageModel, shards: ShardFolder, packing: PackingSettings, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of every masked token and its position in its document's piece."""
    losses, positions = [], []
    for each in held_out_batches(shards, packing, seed=0, max_tokens=max_tokens):
        hidden = model.encoder(each.batch).index_select(0, each.masked_indices)
        logits = model.head(hidden) @ model.decoder_weight.T + model.decoder_bias
        losses.append(torch.nn.functional.cross_entropy(logits, each.labels, reduction="none"))
        positions.append(each.batch.position_ids[each.masked_indices])
    return torch.cat(losses), torch.cat(positions)


def _by_position(model: MaskedLanguageModel, shards: ShardFolder) -> list[dict[str, float]]:
    """Mean losses between the borders of BUCKETS, of pieces of up to 8,192 tokens."""
    packing = PackingSettings(max_seqlen=LONG, bin_tokens=LONG)
    losses, positions = _losses(model, shards, packing, _LONG_HELD_OUT_TOKENS)
    rows = []
    for first, last in pairwise(BUCKETS):
        inside = losses[(positions >= first) & (positions < last)]
        rows.append({"from": first, "to": last, "tokens": len(inside), "loss": _mean(inside)})
    return rows


def _averages(
    folder: Path, shards: Mapping[str, ShardFolder], packing: PackingSettings
) -> dict[str, float]:
    """The mixed loss of the last checkpoint, and of the mean weights of the last few."""
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    found = {}
    for number in (1, *_AVERAGED):
        weights = [load_file(each / "model.safetensors") for each in checkpoints[-number:]]
        mean = {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}
        model = MaskedLanguageModel.from_pretrained(folder / "model")
        model.load_state_dict(mean, strict=False)
        model.encoder.for_inference("float32")
        each = [
            _mean(_losses(model, part, packing, _HELD_OUT_TOKENS)[0]) for part in shards.values()
        ]
        found[str(number)] = sum(each) / len(each)
    return found


def _mean(losses: torch.Tensor) -> float:
    return float(losses.double().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and write the scores."""
    made = bare_parser(__doc__, scale=(1.0, "of the tokens, for a trial"))
    made.add_argument("arm", choices=[arm.name for arm in ARMS])
    made.add_argument("seed", type=int)
    made.add_argument("--corpora", type=Path, required=True)
    made.add_argument("--runs", type=Path, required=True)
    options = made.parse_args(arguments)
    arm = next(each for each in ARMS if each.name == options.arm)
    warnings.simplefilter("ignore", GrowthWarning)
    folder = train(arm, options.seed, options.corpora, options.runs, scale=options.scale)
    scores = score(arm, folder, options.corpora)
    write_whole(folder / "scores.json", json.dumps(scores, indent=1).encode())


if __name__ == "__main__":
    main()
