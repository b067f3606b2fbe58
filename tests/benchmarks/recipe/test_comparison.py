"""Verdicts on differences with a known spread."""

import pytest

from benchmarks.recipe.arms import ARMS, shared_recipe
from benchmarks.recipe.comparison import CLAIMS, Claim, compare, interval, table
from modernbert.settings import parse
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tasks.pretraining.recipe_tables import merge

CLAIM = Claim(
    name="claim", claim="a beats b", better="a", worse="b", measure=lambda scores: scores["mixed"]
)


def test_claims_name_arms_that_there_are() -> None:
    names = {arm.name for arm in ARMS}
    assert {claim.better for claim in CLAIMS} | {claim.worse for claim in CLAIMS} <= names
    assert {arm.start for arm in ARMS} - {None} <= names


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-0.3, -0.31, -0.29], "reproduced"),
        ([0.3, 0.31, 0.29], "the opposite"),
        ([-0.3, 0.1, 0.05], "no clear difference"),
    ],
)
def test_a_verdict_follows_from_mean_and_spread(differences: list[float], verdict: str) -> None:
    assert interval(differences)["verdict"] == verdict


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    # t of 0.975 with 2 degrees of freedom is 4.303; the standard error is 1 / sqrt(3).
    assert found["interval"] == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-3)


def test_runs_are_compared_seed_by_seed() -> None:
    scores = {
        "a": {0: {"mixed": 1.0}, 1: {"mixed": 5.0}, 2: {"mixed": 7.0}},
        "b": {1: {"mixed": 5.5}, 0: {"mixed": 1.25}},
    }
    found = compare(CLAIM, scores)
    assert found is not None
    assert found["differences"] == [-0.25, -0.5]
    assert "-0.3750" in table({"claim": found})


def test_one_seed_is_no_comparison() -> None:
    assert compare(CLAIM, {"a": {0: {"mixed": 1.0}}, "b": {0: {"mixed": 2.0}}}) is None
    assert "not run" in table({"claim": None})


def test_every_arm_makes_a_recipe() -> None:
    for arm in ARMS:
        whole = merge(shared_recipe(seed=1), arm.recipe)
        whole |= {"output": "run", "tokenizer": "tokenizer", "sources": [{"shards": "shards"}]}
        (phase,) = parse(PretrainingRecipe, whole, where=arm.name).phases
        assert phase.seed == phase.training.seed == 1
        assert (phase.training.schedule.decay == "constant") == (arm.name == "constant")
