"""Operations of a phase, the peak of a machine, and what is known of chips."""

import numpy as np
import pytest
from tests.planning.examples import machine, phase

from modernbert.errors import InputError, SettingsError
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.planning.lengths import DocumentLengths
from modernbert.planning.phase import CHIPS, find_chip


def test_flops_are_an_average_over_tokens_not_over_documents() -> None:
    """One document of 98 tokens and nine of 8: half of the tokens in sequences of each kind."""
    lengths = DocumentLengths.measured(np.array([98] + [8] * 10), source="")
    config = EncoderConfig.preset("tiny")
    rate = 0.3
    of_long = flops_per_token(config, 100, masked_share=rate * 0.98)
    of_short = flops_per_token(config, 10, masked_share=rate * 0.8)
    example = phase(config=config, lengths=lengths, mask_rate=rate)
    assert example.forward_flops_per_token() == pytest.approx((of_long + of_short) / 2)


def test_a_step_is_three_forwards_and_recomputing_one_more_of_the_encoder() -> None:
    forward = phase().forward_flops_per_token()
    encoder = phase().forward_flops_per_token(head=False)
    assert phase().training_flops_per_token() == 3 * forward
    assert phase().training_flops_per_token(recompute=True) == 3 * forward + encoder
    assert encoder < forward < 1.15 * encoder


def test_masked_rows_alone_are_decoded() -> None:
    config = EncoderConfig.preset("base")
    more = phase(mask_rate=0.3).forward_flops_per_token()
    more -= phase(mask_rate=0.15).forward_flops_per_token()
    decoder = 2 * config.hidden_size * (config.hidden_size + config.vocab_size)
    assert more == pytest.approx(0.15 * decoder, rel=0.01)


def test_longer_sequences_cost_more() -> None:
    costs = [phase(max_seqlen=n).forward_flops_per_token() for n in (512, 1_024, 8_192)]
    assert costs == sorted(costs)


def test_steps_are_rounded_up() -> None:
    assert phase(total_tokens=10, tokens_per_step=4).num_steps == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_tokens": 0}, "total_tokens: got 0"),
        ({"micro_batch_tokens": -1}, "micro_batch_tokens: got -1"),
        ({"max_seqlen": 2}, "max_seqlen: got 2"),
        ({"mask_rate": 0.0}, "mask_rate: got 0"),
    ],
)
def test_impossible_phases(change: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        phase(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_gpus": 0}, "gpus: got 0"),
        ({"share_of_peak": 1.5}, "share: got 1.5"),
        ({"share_of_peak": 0.0}, "share: got 0"),
        ({"peak_tflops": 0.0}, "peak: got 0"),
        ({"price_per_gpu_hour": -1.0}, "price: got -1"),
    ],
)
def test_impossible_machines(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        machine(**change)


def test_the_peak_is_that_of_the_format() -> None:
    assert machine("h100").peak_flops_per_second("auto") == 989.4e12
    assert machine("h100").peak_flops_per_second("float32") == 67e12
    assert machine("v100").peak_flops_per_second("auto") == 15.7e12
    assert machine("cpu", peak_tflops=0.5).peak_flops_per_second("auto") == 0.5e12


def test_a_format_that_the_chip_lacks() -> None:
    with pytest.raises(InputError, match="V100 SXM2 32 GB lacks"):
        machine("v100").peak_flops_per_second("bfloat16")


def test_a_cpu_must_be_measured() -> None:
    with pytest.raises(InputError, match="peak: not known for CPU"):
        machine("cpu").peak_flops_per_second("auto")


@pytest.mark.parametrize(
    ("name", "found"),
    [("h100", "H100 SXM"), ("H100-PCIe", "H100 PCIe"), ("a100 40GB", "A100 40 GB"), ("CPU", "CPU")],
)
def test_case_spaces_and_dashes_do_not_matter(name: str, found: str) -> None:
    assert find_chip(name).name == found


def test_the_nearest_names_are_told() -> None:
    with pytest.raises(InputError, match=r"kind: got 'h10', .*h100"):
        find_chip("h10")
    with pytest.raises(InputError, match="expected one of b200, h200, h100"):
        find_chip("abacus")


@pytest.mark.parametrize("name", [name for name in CHIPS if name != "cpu"])
def test_numbers_of_a_kind_agree(name: str) -> None:
    """A slip of a factor of ten, or a peak with sparsity in one row, would stand out."""
    chip = CHIPS[name]
    assert chip.memory_gb and chip.bandwidth_gb_per_second and chip.float32_tflops
    assert 16 <= chip.memory_gb <= 192
    peak = (chip.bfloat16_tflops or 8 * chip.float32_tflops) * 1e12
    assert 60 < peak / (chip.bandwidth_gb_per_second * 1e9) < 450
    if chip.bfloat16_tflops:
        assert 1.9 <= chip.bfloat16_tflops / chip.float32_tflops <= 31
