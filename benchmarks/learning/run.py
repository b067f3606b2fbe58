"""One candidate, or one peer, with one seed and one budget: trained and scored in this process.

    python -m benchmarks.learning.run NAME --tokens 400000 --seed 0 --text FOLDER --runs FOLDER

A run trains from the text's first model and leaves `scores.json` in its folder; one that was
stopped begins anew. States are kept at even distances in tokens and scored afterwards, everyone's
by the same code on the same held-out batches, whatever packing or masks a candidate trains with.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.command import bare_parser
from benchmarks.learning.candidates import is_peer, named, recipe_table
from benchmarks.learning.peers import NUM_POINTS, Score, train_peer
from benchmarks.learning.text import Text
from modernbert.files import write_whole
from modernbert.settings import parse
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe

SCORES_FILE = "scores.json"
_LONGEST = 8_192  # that a phase may have
_ANGLES = ("global_theta", "local_theta")  # all that a candidate's model may change


def run_folder(runs: Path, tokens: int, name: str, seed: int) -> Path:
    """Where a run and its scores are."""
    return runs / str(tokens) / name / str(seed)


def train_candidate(name: str, tokens: int, seed: int, text: Text, folder: Path) -> list[Score]:
    """Train as a candidate says and score the states that were kept."""
    recipe = candidate_recipe(name, tokens, seed, text, folder)
    clocks: dict[int, tuple[int, float, float]] = {}
    seconds, cpu_began = 0.0, time.process_time()

    def watch(record: dict[str, Any]) -> None:
        nonlocal seconds
        if record["kind"] == "step":
            seconds += record["seconds"]
            cpu = time.process_time() - cpu_began
            clocks[record["step"]] = (record["tokens"], seconds, cpu)

    pretrain(recipe, [watch])
    states = sorted((recipe.output / "checkpoints").glob("step-*"), key=_step)
    return [_score(text, state, clocks[_step(state)]) for state in states]


def candidate_recipe(
    name: str, tokens: int, seed: int, text: Text, folder: Path
) -> PretrainingRecipe:
    """The recipe of a candidate for a budget and a seed, which is that of order and masks.

    The model is the text's first one, whatever size the candidate has.
    """
    table = recipe_table(named(name), tokens)
    places = {
        "output": str(folder / "run"),
        "tokenizer": str(text.tokenizer),
        "sources": [{"shards": str(text.train_shards)}],
        "seed": seed,
    }
    for part in (table, *table.get("phases", ())):
        given = {key: part["model"][key] for key in _ANGLES if key in part.get("model", {})}
        part["model"] = {"start": str(text.first_model), "max_seqlen": _LONGEST, **given}
    recipe = parse(PretrainingRecipe, {**table, **places}, where=name)
    steps = sum(
        each.batch.num_steps(each.training.total_tokens, each.packing.bin_tokens)
        for each in recipe.phases
    )
    often = {
        "checkpoint_every_steps": max(1, -(-steps // NUM_POINTS)),
        "keep_checkpoints": 10 * NUM_POINTS,
        "seed": seed,
    }
    table["training"] = {**table.get("training", {}), **often}
    return parse(PretrainingRecipe, {**table, **places}, where=name)


def _score(text: Text, state: Path, clock: tuple[int, float, float]) -> Score:
    figures = text.held_out_figures(load_file(state / "model.safetensors"))
    tokens, seconds, cpu_seconds = clock
    return Score(
        tokens=tokens,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        loss=figures["held_out_loss"],
        accuracy=figures["held_out_accuracy"],
    )


def _step(state: Path) -> int:
    return int(state.name.removeprefix("step-"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score, write the scores and throw the states away."""
    made = bare_parser(
        __doc__,
        seed=(0, "of the order of the data and of the masks"),
        threads=(1, "of torch"),
    )
    made.add_argument("name", help="a candidate, a recipe file, or a peer@rate")
    made.add_argument("--tokens", type=int, required=True)
    made.add_argument("--text", type=Path, required=True, help="prepared before")
    made.add_argument("--runs", type=Path, required=True)
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    text = Text(options.text)
    folder = run_folder(options.runs, options.tokens, options.name, options.seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if is_peer(options.name):
        scores = train_peer(options.name, options.tokens, options.seed, text)
    else:
        scores = train_candidate(options.name, options.tokens, options.seed, text, folder)
    points = {"points": [asdict(each) for each in scores], "num_threads": options.threads}
    write_whole(folder / SCORES_FILE, json.dumps(points, indent=1).encode())
    shutil.rmtree(folder / "run", ignore_errors=True)


if __name__ == "__main__":
    main()
