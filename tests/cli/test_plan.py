"""`modernbert plan`: what it reads from a recipe, and what it shows."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.tasks.pretraining.small import World

from modernbert.cli.plan import lengths_of, phases_of
from modernbert.data.shards import ShardFolder
from modernbert.settings import parse, to_toml
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tasks.pretraining.trial import Trial, TrialSettings

BASE = """
output = "runs/base"
tokenizer = "nowhere/tokenizer"
sources = [{ shards = "nowhere/shards" }]
model = { preset = "base" }
batch = { bins_per_step = 576, bins_per_micro_batch = 8 }
training = { total_tokens = 1_719_000_000_000, schedule = { peak_learning_rate = 8e-4 } }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.toml"
    file.write_text(BASE)
    return file


def values(stdout: str) -> dict[str, str]:
    """The first value of each row of the table."""
    rows = re.findall(r"^ *(\S.*?) {2,}(\S+(?: [GMT]B)?)(?: |$)", stdout, re.MULTILINE)
    return dict(rows)


def test_the_papers_base(run: Run, base: Path) -> None:
    """Nothing that the recipe names is there, and the hours are the paper's own."""
    answer = run("plan", base, "--gpus", 8, "--kind", "h100", "--price", 2)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith(
        "8 x H100 SXM, 80 GB at 3.35 TB/s, data parallel; 989.4 TFLOP/s"
    )
    shown = values(answer.stdout)
    assert shown["tokens a step"] == "4,718,592" and shown["steps"] == "364,304"
    assert shown["vocabulary size"] == "50,368" and shown["parameters"] == "149,655,232"
    assert "50,368  assumed, as nowhere/tokenizer does not exist" in answer.stdout
    assert (shown["hours"], shown["GPU hours"], shown["cost"]) == ("191.1", "1,528.8", "3,058")
    assert shown["share of peak"] == "25.7%"
    assert shown["weights"] == "599 MB"
    assert shown["shards"] == "6,857"


def test_every_phase_of_a_recipe(run: Run) -> None:
    """The paper's base: 191.1, 36.3 and 7.5 hours, of which the first is given by the share."""
    planned = run("plan", "base", "--json", "--price", 2).json
    phases = {phase["name"]: phase for phase in planned["phases"]}
    assert list(phases) == ["pretraining", "extension", "decay"]
    hours = {name: phase["hours"] for name, phase in phases.items()}
    assert hours == {
        "pretraining": pytest.approx(191.1, rel=1e-3),  # the ramp's steps wait more often
        "extension": pytest.approx(36.3, rel=0.25),
        "decay": pytest.approx(7.5, rel=0.25),
    }
    assert planned["total"]["tokens"] == 2_019_000_000_000
    assert planned["total"]["hours"] == pytest.approx(sum(hours.values()))
    assert planned["total"]["cost"] == pytest.approx(16 * sum(hours.values()))
    # The ramp's smaller steps make more of them than 1.719e12 / 4,718,592.
    assert phases["pretraining"]["steps"] > 364_304 + 10_000
    shown = run("plan", "base").stdout
    assert re.search(r"^ +pretraining +extension +decay +where it comes from$", shown, re.MULTILINE)
    assert "all phases" in shown


def test_a_model_that_grows_from_one_that_is_not_there(run: Run) -> None:
    planned = run("plan", "large", "--json").json
    assert {phase["parameters"] for phase in planned["phases"]} == {395_881_664}
    first, lowered, extension, decay = (phase["hours"] for phase in planned["phases"])
    assert first + lowered == pytest.approx(420.4, rel=1e-3)
    assert extension == pytest.approx(75.1, rel=0.25) and decay == pytest.approx(15.3, rel=0.25)


def test_each_number_says_where_it_comes_from(run: Run, base: Path) -> None:
    shown = run("plan", base).stdout
    assert "what the paper's base reached on 8 H100; yours: --share" in shown
    assert "its datasheet, dense" in shown
    assert "documents of pretraining: web-like" in shown
    given = run("plan", base, "--share", 0.3, "--peak", 500, "--tokenize-rate", 1e6).stdout
    assert re.search(r"share of peak +30.0%  given", given)
    assert "500 TFLOP/s each in bfloat16 (given)" in given
    assert re.search(r"core hours to tokenize +476.1  given", given)


def test_as_json(run: Run, base: Path) -> None:
    planned = run("plan", base, "--json", "--gpus", 16, "--price", 2.5).json
    (phase,) = planned["phases"]
    assert phase["name"] == "pretraining"
    assert 191.1 / 2 < phase["hours"] < 191.1 / 2 * 1.05  # waiting for the other machine
    assert phase["cost"] == pytest.approx(16 * 2.5 * phase["hours"])
    assert 0 < phase["communication"]["waiting_seconds"] < 0.1
    parts = phase["memory_bytes"]
    assert parts["weights"] == 4 * 149_655_232 and parts["total"] > parts["activations"]
    assert planned["total"]["gpu_hours"] == phase["gpu_hours"]
    assert planned["machine"]["chip"]["name"] == "H100 SXM"
    assert planned["data"]["dtype"] == "uint16"


def test_options_reach_the_plan(run: Run, base: Path) -> None:
    def phase(*options: object) -> Any:
        return run("plan", base, "--json", *options).json["phases"][0]

    plain = phase()
    assert phase("--sharded")["memory_bytes"]["weights"] < plain["memory_bytes"]["weights"]
    assert phase("--recompute")["hours"] > plain["hours"]
    again, sharded = phase("--recompute"), phase("--sharded")
    for computation, same in (("recompute = true", again), ('sharding = "full"', sharded)):
        base.write_text(f"{BASE}computation = {{ {computation} }}\n")
        assert phase() == same
    base.write_text(BASE)
    assert phase("--mean-document-tokens", 100)["hours"] < plain["hours"]
    assert phase("--preset", "large")["parameters"] == 395_881_664
    a100 = plain["hours"] * 989.4 / 312
    assert phase("--kind", "a100")["hours"] == pytest.approx(a100, rel=0.01)
    assert phase("--link", 1)["hours"] > phase("--link", 100)["hours"]


def test_a_cpu_is_measured_unless_it_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def slow(settings: TrialSettings) -> Trial:
        tried.append(settings)
        return Trial(flops_per_second=1e6, num_steps=3, seconds=6.0)

    monkeypatch.setattr("modernbert.tasks.pretraining.trial.try_training", slow)
    options = "rehearsal", "--kind", "cpu", "--json"
    planned = run("plan", *options).json
    assert planned["machine"]["num_gpus"] == 1
    assert planned["machine"]["peak_tflops"] > 0
    assert planned["sources"]["peak"] == "measured here, all cores"
    assert "steps of training" in planned["sources"]["share_of_peak"]
    for phase in planned["phases"]:
        assert phase["tokens_per_second"] == pytest.approx(1e6 / phase["flops_per_token"])
    assert [max(each.lengths) > 1024 for each in tried] == [False, True, True]
    tried.clear()
    given = run("plan", *options, "--peak", 2).json
    assert given["machine"]["peak_tflops"] == 2 and given["sources"]["peak"] == "given"
    assert run("plan", *options, "--share", 0.5).json["machine"]["share_of_peak"] == 0.5
    assert not tried


def test_a_busy_machine_is_told_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Trial(flops_per_second=1e9, num_steps=3, seconds=6.0, core_share=0.25)
    monkeypatch.setattr("modernbert.tasks.pretraining.trial.try_training", lambda _: busy)
    told = run("plan", "mini", "--kind", "cpu").stderr
    assert "training had 25% of the cores' time" in told and "4.0 times as fast" in told
    idle = replace(busy, core_share=0.95)
    monkeypatch.setattr("modernbert.tasks.pretraining.trial.try_training", lambda _: idle)
    assert "cores' time" not in run("plan", "mini", "--kind", "cpu").stderr


def test_a_cpu_that_trains_faster_than_one_product(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share of the peak is at most 1, whatever the product alone has reached."""
    fast = Trial(flops_per_second=1e18, num_steps=3, seconds=6.0)
    monkeypatch.setattr("modernbert.tasks.pretraining.trial.try_training", lambda _: fast)
    phase, *_ = run("plan", "mini", "--kind", "cpu", "--json").json["phases"]
    assert phase["tokens_per_second"] == pytest.approx(1e18 / phase["flops_per_token"])


@pytest.mark.parametrize(
    ("units", "precision", "form"),
    [
        (True, "auto", "bfloat16"),
        (False, "auto", "float32"),
        (True, "float32", "float32"),
        (False, "bfloat16", "bfloat16"),
    ],
)
def test_a_cpu_computes_as_in_training(
    run: Run, base: Path, monkeypatch: pytest.MonkeyPatch, units: bool, precision: str, form: str
) -> None:
    monkeypatch.setattr("modernbert.training.computation._has_bfloat16_units", lambda _: units)
    base.write_text(BASE.replace("total_tokens", f'precision = "{precision}", total_tokens'))
    options = ("--kind", "cpu", "--peak", 1)
    assert f"1 TFLOP/s each in {form} (given)" in run("plan", base, *options).stdout
    memory = run("plan", base, *options, "--json").json["phases"][0]["memory_bytes"]
    assert (memory["weight_copies"] > 0) == (form == "bfloat16")


def test_what_speaks_against_it_is_told(run: Run, base: Path) -> None:
    answer = run("plan", base, "--kind", "l4", "--gpus", 128)
    assert answer.exit_code == 0
    assert re.search(r"pretraining: 4\d GB a process do not fit the 24 GB of L4", answer.stderr)
    assert "for each of 128 processes" in answer.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "h10"), "did you mean h100"),
        (("--share", "1.5"), "share: got 1.5"),
        (("--gpus", "0"), "gpus: got 0"),
        (("--preset", "huge"), "preset: got 'huge'"),
        (("--tokenize-rate", "0"), "--tokenize-rate: got 0"),
        (("--mean-document-tokens", "0"), "--mean-document-tokens: got 0"),
    ],
)
def test_wrong_options(run: Run, base: Path, options: tuple[str, ...], message: str) -> None:
    answer = run("plan", base, *options)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: ") and message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_wrong_recipe(run: Run, base: Path) -> None:
    base.write_text(BASE.replace("preset", "presett"))
    answer = run("plan", base)
    assert answer.exit_code == 2 and "did you mean 'preset'?" in answer.stderr


def test_a_model_that_is_not_there_yet(run: Run, base: Path) -> None:
    base.write_text(BASE.replace('preset = "base"', 'start = "runs/earlier/model"'))
    answer = run("plan", base)
    assert answer.exit_code == 2
    assert "runs/earlier/model" in answer.stderr and "--preset base" in answer.stderr
    planned = run("plan", base, "--preset", "base", "--json").json
    assert planned["phases"][0]["parameters"] == 149_655_232


def test_vocabulary_and_lengths_of_what_is_there(world: World, tmp_path: Path, run: Run) -> None:
    recipe = world.recipe(tmp_path / "run")
    (phase,) = phases_of(recipe, preset=None, mean_document_tokens=None)
    assert phase.config.vocab_size == 448
    assert phase.tokens_per_step == 3 * 128 and phase.micro_batch_tokens == 2 * 128
    assert phase.lengths.source == "measured in the recipe's shards"
    shards = [ShardFolder.open(each.shards).shards[0] for each in recipe.phases[0].sources]
    means = [shard.num_tokens / shard.num_documents for shard in shards]
    assert phase.lengths.mean == pytest.approx(3 / (2 / means[0] + 1 / means[1]))
    (tmp_path / "small.toml").write_text(to_toml(recipe))
    shown = run("plan", tmp_path / "small.toml", "--kind", "cpu", "--peak", 0.5, "--gpus", 1).stdout
    assert "1 x CPU, data parallel; 0.5 TFLOP/s each in " in shown
    assert "documents of pretraining: measured in the recipe's shards" in shown


def test_one_source_is_measured_alone(world: World, tmp_path: Path) -> None:
    settings = world.settings(tmp_path / "run", sources=[{"shards": str(world.sources[1])}])
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    assert lengths_of(recipe.phases[0], None).source == f"measured in {world.sources[1]}"
