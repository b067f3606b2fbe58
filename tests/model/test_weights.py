"""Reading and writing tensors: headers first, damage told by name, pickles never."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modernbert.errors import ModelFolderError
from modernbert.model.weights import read_headers, read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5, -2.0])}


def shard(folder: Path, places: object) -> None:
    """Both tensors in files of their own, and an index that says so."""
    save_file({"a": TENSORS["a"]}, folder / "one.safetensors")
    save_file({"b": TENSORS["b"]}, folder / "two.safetensors")
    index = places if isinstance(places, str) else json.dumps({"weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors({header.name: header for header in read_headers(folder)})


def check(folder: Path) -> None:
    assert {header.name: header.shape for header in read_headers(folder)} == {
        "a": (2, 3),
        "b": (2,),
    }
    tensors = read_all(folder)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_one_file(tmp_path: Path) -> None:
    write_tensors(tmp_path, TENSORS)
    check(tmp_path)


def test_whoever_reads_the_settings_reads_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_tensors(tmp_path, TENSORS)
    (weights,) = tmp_path.glob("*.safetensors")
    mode = (tmp_path / "config.json").stat().st_mode
    assert weights.stat().st_mode == mode
    weights.chmod(0o640)
    write_tensors(tmp_path, TENSORS)
    assert stat.S_IMODE(weights.stat().st_mode) == 0o640


def test_several_files(tmp_path: Path) -> None:
    shard(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    check(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    write_tensors(tmp_path, {name: tensor.to(dtype) for name, tensor in TENSORS.items()})
    tensors = read_all(tmp_path)
    assert all(tensors[name].dtype == torch.float32 for name in TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_what_is_read_outlives_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path, TENSORS)
    tensors = read_all(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)  # in place: a map of the file would see it
    assert torch.equal(tensors["a"], TENSORS["a"])


def test_views_are_written_as_their_own_tensors(tmp_path: Path) -> None:
    square = torch.arange(9.0).reshape(3, 3)
    write_tensors(tmp_path, {"turned": square.T, "row": square[1]})
    tensors = read_all(tmp_path)
    assert torch.equal(tensors["turned"], square.T)
    assert torch.equal(tensors["row"], square[1])


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"holds no weights; expected a model.safetensors"):
        read_headers(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-2.bin", "x.pt"])
def test_pickles_are_never_read(name: str, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / name)
    with pytest.raises(ModelFolderError, match=rf"weights in {name}, which can run code"):
        read_headers(tmp_path)


def test_a_pickle_beside_the_weights_does_not_matter(tmp_path: Path) -> None:
    write_tensors(tmp_path, TENSORS)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    check(tmp_path)


def test_a_file_that_no_memory_holds(tmp_path: Path) -> None:
    """A hole of many terabytes, which takes no room on the disk."""
    write_tensors(tmp_path, TENSORS)
    path = tmp_path / "model.safetensors"
    os.truncate(path, path.stat().st_size + (1 << 43))
    with pytest.raises(ModelFolderError, match=r"model.safetensors: (does not fit|damaged)"):
        read_headers(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 50, -1])
def test_a_truncated_file(keep: int, tmp_path: Path) -> None:
    write_tensors(tmp_path, TENSORS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFolderError, match=r"model.safetensors: damaged or not a safetensors"):
        read_headers(tmp_path)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\nsize 1\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelFolderError, match=r"a pointer of Git LFS .* run `git lfs pull`"):
        read_headers(tmp_path)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    """A header's length of 2^60 must not be believed."""
    (tmp_path / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFolderError, match="damaged"):
        read_headers(tmp_path)


def test_a_tensor_that_is_no_float(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFolderError, match="a is I64, expected one of F32"):
        read_headers(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[]", "expected a JSON object"),
        ("{}", "not a readable index"),
        ('{"weight_map": {"a": [1]}}', "not a readable index"),
        ({"a": 7}, "names 7, expected a file next to it"),
        ({"a": "../one.safetensors"}, "expected a file next to it"),
        ({"a": "/etc/passwd"}, "expected a file next to it"),
        (
            {"a": "one.safetensors", "b": "three.safetensors"},
            "names three.safetensors, which does not exist",
        ),
    ],
)
def test_a_broken_index(places: object, message: str, tmp_path: Path) -> None:
    shard(tmp_path, places)
    with pytest.raises(ModelFolderError, match=message):
        read_headers(tmp_path)
