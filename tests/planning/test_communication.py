"""What processes send to each other: by hand, and against a schedule that is played through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planning.examples import machine, phase

from modernbert.errors import InputError
from modernbert.planning.phase import num_matrix_parameters
from modernbert.planning.plan import fitted_share, plan_communication, plan_phase

WEIGHTS = 4 * phase().config.num_parameters(head=True)
REACHED = 0.75 * 450e9


def test_one_process_sends_nothing() -> None:
    sent = plan_communication(phase(), machine(), 1.0)
    assert (sent.bytes_per_step, sent.seconds, sent.waiting_seconds) == (0, 0, 0)


def test_whole_copies_wait_for_the_sum_of_the_gradients() -> None:
    sent = plan_communication(phase(), machine(num_gpus=8), 1.0)
    assert sent.bytes_per_step == pytest.approx(2 * 7 / 8 * WEIGHTS)
    assert sent.waiting_seconds == sent.seconds == pytest.approx(sent.bytes_per_step / REACHED)


def test_shards_are_gathered_while_others_are_computed() -> None:
    """9 micro-batches of 8 x 65,536 tokens; only the first part of each pass is waited for."""
    sent = plan_communication(phase(), machine(num_gpus=8, sharded=True), 10.0)
    once = 7 / 8 * WEIGHTS
    assert sent.bytes_per_step == pytest.approx(19 * once)
    parts = phase().config.num_layers + 1
    assert sent.waiting_seconds == pytest.approx(19 * once / REACHED / parts)


def test_muon_gathers_its_momentum_where_it_is_sharded() -> None:
    adamw, muon = (phase(optimizer=name) for name in ("adamw", "muon"))
    for sharded, expected in ((False, 0.0), (True, 7 / 8 * 4 * num_matrix_parameters(muon.config))):
        trainer = machine(num_gpus=8, sharded=sharded)
        without, sent = (plan_communication(each, trainer, 10.0) for each in (adamw, muon))
        assert sent.bytes_per_step - without.bytes_per_step == pytest.approx(expected)
        more = sent.waiting_seconds - without.waiting_seconds
        assert more == pytest.approx(expected / REACHED)


@given(
    seconds=st.floats(0, 20),
    link=st.floats(0.1, 1000),
    num_gpus=st.integers(2, 64),
    micro_batch_tokens=st.integers(1_024, 1 << 20),
)
def test_equal_to_a_schedule_that_is_played_through(
    seconds: float, link: float, num_gpus: int, micro_batch_tokens: int
) -> None:
    trained = phase(micro_batch_tokens=micro_batch_tokens)
    trainer = machine(num_gpus=num_gpus, sharded=True, link_gb_per_second=link)
    sent = plan_communication(trained, trainer, seconds)
    num_parts = trained.config.num_layers + 1
    num_micro = max(1, -(-trained.tokens_per_step // (num_gpus * micro_batch_tokens)))
    transfer = (1 - 1 / num_gpus) * WEIGHTS / (0.75e9 * link) / num_parts
    forward = seconds / num_micro / 3 / num_parts
    clock = 0.0
    for micro in range(num_micro):
        clock = play(clock, transfer, forward, num_parts)
        factor = 2 if micro == num_micro - 1 else 1
        clock = play(clock, factor * transfer, 2 * forward, num_parts)
    assert sent.waiting_seconds == pytest.approx(clock - seconds, rel=1e-6, abs=1e-6)
    assert 0 <= sent.waiting_seconds <= sent.seconds * (1 + 1e-9)


def play(begin: float, transfer: float, compute: float, num_parts: int) -> float:
    """When a pass ends: a part is sent from when the part before it begins to be computed."""
    arrived = begin + transfer
    ended = begin
    for _ in range(num_parts):
        began = max(arrived, ended)
        ended, arrived = began + compute, began + transfer
    return ended


def test_the_network_between_machines_is_slower() -> None:
    eight, sixteen = (plan_communication(phase(), machine(num_gpus=n), 1.0) for n in (8, 16))
    assert sixteen.seconds / eight.seconds == pytest.approx(9 * (15 / 16) / (7 / 8))


def test_a_given_link_is_taken() -> None:
    slow = machine(num_gpus=16, link_gb_per_second=1.25)
    assert plan_communication(phase(), slow, 1.0).seconds == pytest.approx(
        2 * 15 / 16 * WEIGHTS / (0.75 * 1.25e9)
    )
    with pytest.raises(InputError, match=r"link: got 0, expected GB/s above 0"):
        machine(link_gb_per_second=0)


def test_a_cpu_asks_for_its_link() -> None:
    cpu = machine("cpu", num_gpus=2, peak_tflops=0.2)
    with pytest.raises(InputError, match="link: not known for CPU; give the GB/s"):
        plan_phase(phase(precision="float32"), cpu)


def test_waiting_makes_a_phase_longer() -> None:
    fast, slow = (machine(num_gpus=8, link_gb_per_second=link) for link in (1e6, 1.0))
    waited = plan_communication(phase(), slow, 0.0).waiting_seconds
    steps = phase().total_tokens / phase().tokens_per_step
    more = 3600 * (plan_phase(phase(), slow).hours - plan_phase(phase(), fast).hours)
    assert more == pytest.approx(steps * waited, rel=1e-3)


def test_a_fitted_share_leaves_the_waiting_out() -> None:
    slow = machine(num_gpus=8, link_gb_per_second=1.0)
    share = fitted_share(phase(), slow, hours=0.5)
    again = machine(num_gpus=8, link_gb_per_second=1.0, share_of_peak=share)
    assert plan_phase(phase(), again).hours == pytest.approx(0.5)
