"""The writer of tensors, against the library that reads them."""

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.full_disk import largest_file

from modernbert.training.tensors import write_tensors

FORMATS = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
shapes = st.lists(st.integers(0, 5), max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1), st.tuples(st.sampled_from(FORMATS), shapes), max_size=6)
)
def test_the_library_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    wanted.pop("__metadata__", None)
    tensors = {name: (torch.randn(shape) * 50).to(dtype) for name, (dtype, shape) in wanted.items()}
    path = tmp_path_factory.mktemp("file") / "some.safetensors"
    fingerprint = write_tensors(path, tensors)
    content = path.read_bytes()
    assert fingerprint == {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    read = safetensors.torch.load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name], tensor)


def test_large_tensors_go_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modernbert.training.tensors._PIECE_BYTES", 100)
    tensors = {"large": torch.randn(333, 7), "small": torch.tensor(3.0)}
    write_tensors(tmp_path / "file", tensors)
    for name, tensor in safetensors.torch.load_file(tmp_path / "file").items():
        assert torch.equal(tensor, tensors[name])


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"), largest_file(5000):
        write_tensors(tmp_path / "file", {"large": torch.zeros(5000)})
