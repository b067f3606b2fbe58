"""From a corpus to a model that others load, by the verbs of the command line alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.journey.command_line import succeed, write_recipe
from tests.journey.conftest import Journey

from modernbert import FillMask, MaskedLanguageModel, PackedBatch, Tokenizer
from modernbert.training.log import read_metrics

TEXT = "seven seven [MASK] seven seven seven seven"


def num_steps(output: Path) -> int:
    return sum(row["kind"] == "step" for row in read_metrics(output / "metrics.jsonl"))


def start_pretraining(recipe: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "modernbert", "pretrain", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_steps(process: "subprocess.Popen[str]", output: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while num_steps(output) < number:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_data_and_what_is_talk(journey: Journey) -> None:
    assert journey.said["tokenizer"].stdout == ""
    assert f"{journey.world.path / 'shards'}: " in journey.said["prepare"].stdout
    assert journey.said["pretrain"].stdout == f"{journey.model}\n"
    talk = journey.said["pretrain"].stderr.splitlines()
    evaluations = [line for line in talk if line.startswith("step ")]
    assert len(evaluations) >= 4 and all("held-out loss " in line for line in evaluations)


def test_what_a_run_leaves(journey: Journey) -> None:
    names = {path.name for path in journey.output.iterdir()}
    assert names >= {"checkpoints", "loss.png", "metrics.jsonl", "model", "recipe.toml"}
    assert {path.name for path in journey.model.iterdir()} == {
        "README.md",
        "config.json",
        "hashes.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_model_has_learned_the_corpus(journey: Journey) -> None:
    shown = succeed("fill-mask", journey.model, TEXT, "--top-k", 2).stdout.splitlines()
    assert shown[0] == TEXT and shown[1].startswith("    ' seven' ")
    answer = succeed("fill-mask", journey.model, TEXT, "one [MASK] one [MASK]", "--json")
    first, second = map(json.loads, answer.stdout.splitlines())
    assert first["text"] == TEXT and first["masks"][0][0]["token"] == " seven"
    assert [len(mask) for mask in second["masks"]] == [5, 5]
    assert FillMask.from_pretrained(journey.model)(TEXT)[0][0].token == " seven"


def test_info_of_all_that_was_made(journey: Journey) -> None:
    model = succeed("info", journey.model, "--json").json
    assert (model["kind"], model["vocab_size"], model["layers"]) == ("model", 448, 2)
    run = succeed("info", journey.output, "--json").json
    assert (run["kind"], run["finished"]) == ("run", True)
    assert run["last_evaluation"]["held_out_loss"] < 1
    for path, kind in (
        (journey.recipe, "recipe"),
        (journey.world.path / "shards", "token shards"),
        (journey.world.tokenizer, "tokenizer"),
    ):
        assert succeed("info", path, "--json").json["kind"] == kind


def test_transformers_loads_the_model(journey: Journey) -> None:
    transformers = pytest.importorskip("transformers")
    texts = ["one one [MASK] one", "two [MASK]", "three three three three three three"]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(journey.model).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(journey.model)
    padded = their_tokenizer(texts, padding=True, return_tensors="pt")
    ours, tokenizer = (
        cls.from_pretrained(journey.model) for cls in (MaskedLanguageModel, Tokenizer)
    )
    assert their_tokenizer.model_max_length == 48
    assert their_tokenizer.mask_token_id == tokenizer.mask_token_id
    batch = PackedBatch.from_sequences(tokenizer.encode_batch(texts))
    present = padded["attention_mask"].bool()
    assert torch.equal(padded["input_ids"][present], batch.token_ids)
    with torch.no_grad():
        expected = theirs(**padded).logits[present]
        torch.testing.assert_close(ours(batch), expected, rtol=0, atol=1e-5)


def test_the_same_command_again_does_nothing_more(journey: Journey) -> None:
    before = (journey.model / "model.safetensors").stat().st_mtime_ns
    again = succeed("pretrain", journey.recipe, "--json").json
    assert again["status"] == "already_finished" and again["model"] == str(journey.model)
    assert (journey.model / "model.safetensors").stat().st_mtime_ns == before


def test_killed_and_stopped_it_ends_with_the_same_model(journey: Journey, tmp_path: Path) -> None:
    output = tmp_path / "run"
    recipe = write_recipe(tmp_path / "recipe.toml", {**journey.settings, "output": str(output)})
    process = start_pretraining(recipe)
    wait_for_steps(process, output, 10)
    process.kill()
    process.communicate()
    process = start_pretraining(recipe)
    wait_for_steps(process, output, 30)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (143, "")
    assert "going on from step " in stderr
    assert f"to continue:\n  modernbert pretrain {recipe}\n" in stderr
    assert not (output / "model").exists()
    succeed("pretrain", recipe)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (output / "model" / name).read_bytes() == (journey.model / name).read_bytes()
    steps = [row["step"] for row in read_metrics(output / "metrics.jsonl") if row["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


def test_a_model_is_the_start_of_another(journey: Journey, tmp_path: Path) -> None:
    settings = {
        **journey.settings,
        "output": str(tmp_path / "run"),
        "model": {"start": str(journey.model), "max_seqlen": 96},
        "packing": {"max_seqlen": 96, "bin_tokens": 192},
    }
    settings["training"] = {**settings["training"], "total_tokens": 2_000}
    answer = succeed("pretrain", write_recipe(tmp_path / "recipe.toml", settings))
    first = next(line for line in answer.stderr.splitlines() if line.startswith("step "))
    assert float(first.split("held-out loss ")[1].split()[0]) < 1
    assert succeed("info", tmp_path / "run" / "model", "--json").json["longest_sequence"] == 96
