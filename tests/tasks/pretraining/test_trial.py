"""A trial: real steps of a small model, and the speed that most of the time had."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.model.config import EncoderConfig
from modernbert.tasks.pretraining import trial
from modernbert.tasks.pretraining.trial import TrialSettings, robust_rate, try_training

SMALL = EncoderConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_heads=2,
    layer_kinds=("global", "local", "local"),
    unk_token_id=0,
    cls_token_id=1,
    sep_token_id=2,
    pad_token_id=3,
    mask_token_id=4,
)


def test_it_trains_and_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[dict[str, float]] = []
    see = trial._Watch.__call__

    def watch(self: trial._Watch, record: dict[str, float]) -> None:
        if record["kind"] == "step":
            records.append(record)
        see(self, record)

    monkeypatch.setattr(trial._Watch, "__call__", watch)
    settings = TrialSettings(
        config=SMALL, lengths=(40, 7, 20), micro_batches=2, dropout=0.1, seconds=0.0
    )
    found = try_training(settings)
    assert found.num_steps == 3 and found.seconds > 0 and 0 < found.core_share <= 1
    assert all(record["num_tokens"] == 134 and record["loss"] > 0 for record in records)
    assert records[-1]["flops"] == settings.flops_per_step
    measured = records[-3:]
    assert found.flops_per_second == pytest.approx(
        sum(each["flops"] for each in measured) / sum(each["seconds"] for each in measured)
    )


def records(*seconds: float) -> list[dict[str, float | str]]:
    steps = enumerate(seconds, 1)
    return [{"kind": "step", "step": n, "flops": 6.0, "seconds": each} for n, each in steps]


def watched(wanted: float, *seconds: float) -> tuple[int, trial.Trial]:
    """How many steps a trial takes when they take these seconds, and what it finds."""
    watch = trial._Watch(wanted)
    for number, record in enumerate(records(*seconds), 1):
        try:
            watch(record)
        except trial._Enough:
            return number, watch.result()
    raise AssertionError("it did not end")


def test_the_first_steps_do_not_count() -> None:
    number, found = watched(2.0, 1.9, 0.5, *[0.1] * 100)
    assert found.flops_per_second == pytest.approx(60)
    assert number == 22 or number == 23


def test_a_slow_machine_is_not_kept_for_long() -> None:
    """Where a step takes half a minute, one after the first is enough."""
    number, found = watched(6.0, *[30.0] * 9)
    assert number == 2 and found.flops_per_second == pytest.approx(0.2)


@given(pause=st.floats(2, 1000), at=st.integers(0, 19))
def test_a_pause_of_the_machine_is_forgotten(pause: float, at: int) -> None:
    seconds = [0.3] * 20
    seconds[at] += pause
    assert robust_rate([3.0] * 20, seconds) == pytest.approx(10.0)


def test_of_a_large_model_a_part_is_tried() -> None:
    base = TrialSettings(config=EncoderConfig.preset("base"), lengths=(1024,) * 4, micro_batches=64)
    small = trial._affordable(base)
    assert small.micro_batches == 1
    assert small.config.layer_kinds == base.config.layer_kinds[:5]
    assert small.lengths == base.lengths
    tiny = replace(base, config=SMALL, micro_batches=1)
    assert trial._affordable(tiny) == tiny
