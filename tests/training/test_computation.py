"""Steps draw the same numbers whatever went before; evaluations leave no trace."""

import pytest
import torch
from torch import nn

from modernbert.training.computation import seed_step, undisturbed


def draw(seed: int, step: int) -> float:
    seed_step(seed, step)
    return float(torch.rand(()))


def test_random_numbers_depend_on_seed_and_step_alone() -> None:
    first = draw(0, 7)
    torch.rand(100)
    assert draw(0, 7) == first
    assert len({draw(seed, step) for seed in range(20) for step in range(20)}) == 400


def test_an_evaluation_changes_neither_modes_nor_random_state() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    module[1].eval()  # one part is frozen
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    mean = module[1].running_mean.clone()
    with undisturbed(module, torch.device("cpu")):
        assert not module.training and not torch.is_grad_enabled()
        module(torch.rand(5, 3))
    assert torch.equal(torch.rand(4), expected)
    assert [part.training for part in module.modules()] == [True, True, False]
    assert torch.equal(module[1].running_mean, mean)


def test_modes_come_back_after_an_error() -> None:
    module = nn.Dropout(0.5)
    with pytest.raises(KeyError), undisturbed(module, torch.device("cpu")):
        raise KeyError
    assert module.training and torch.is_grad_enabled()
