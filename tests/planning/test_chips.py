"""The table of chips, and how one is found in it."""

import pytest

from modernbert.errors import InputError
from modernbert.planning.chips import CHIPS, find_chip


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
