"""What peers are given, and how their output is compared."""

import pytest
import torch

from benchmarks.engines import distance, groups, ours, pad, padded
from benchmarks.models import random_model
from benchmarks.workloads import token_ids


def test_groups_sort_by_length_or_leave_all_as_they_come() -> None:
    assert groups([3, 9, 1, 7], 2) == [[1, 3], [0, 2]]
    assert groups([3, 9, 1, 7], 3) == [[1, 3, 0], [2]]
    assert groups([3, 9, 1, 7], None) == [[0, 1, 2, 3]]


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_padded_engines_give_each_sequence_its_own(batch_size: int | None) -> None:
    """Whatever the order and the padding: a sequence's states are those of its own ids."""
    encode = padded(lambda ids, mask: (ids * mask)[..., None])
    sequences = [[5, 6], [7], [8, 9, 10]]
    outputs = encode(sequences, batch_size)
    assert [output.flatten().tolist() for output in outputs] == sequences


def test_distance() -> None:
    reference = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    assert distance(reference, reference).max_error == 0
    assert distance(reference, reference).min_cosine == pytest.approx(1)
    changed = [reference[0], torch.tensor([[2.0, 0.0]])]
    found = distance(changed, reference)
    assert found.max_error == 2
    assert found.rms_error == pytest.approx((8 / 6) ** 0.5)
    assert found.min_cosine == pytest.approx(0)


def test_ours_reads_the_model_that_peers_read(tmp_path: object) -> None:
    model = random_model("tiny", 2, cache=tmp_path)  # type: ignore[arg-type]
    assert random_model("tiny", 2, cache=tmp_path).folder == model.folder  # type: ignore[arg-type]
    outputs = ours(model, "float32")(token_ids((9, 4)), None)
    assert [tuple(output.shape) for output in outputs] == [(9, 256), (4, 256)]
    assert "2 of 6 layers (1 global)" in model.description
