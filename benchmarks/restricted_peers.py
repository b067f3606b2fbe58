"""ONNX Runtime and OpenVINO kept to AVX2: copies that hear a smaller CPU than there is.

    eval "$(python -m benchmarks.restricted_peers FOLDER)"
    python -m benchmarks.cpu --restrict avx2 ...

Neither has a variable for it. Every `cpuid` instruction of the copies becomes a breakpoint, and a
small library that is loaded first answers it without AVX-512, VNNI, BF16 and AMX. It wants GCC and
objdump, and takes two minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_MARK = "MODERNBERT_RESTRICTED_PEERS"
_SOURCE = Path(__file__).with_suffix(".c")
_LIBRARIES = {
    "onnxruntime": "capi/onnxruntime_pybind11_state*.so",
    "openvino": "libs/libopenvino*.so*",
}
_NOT_USED = ("gpu", "npu")
_CPUID, _BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"


def are_in_use() -> bool:
    """Whether this process runs with the copies."""
    return _MARK in os.environ


def main(folder: Path) -> None:
    """Make the copies and print what a shell has to export."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / "answers.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", str(_SOURCE), "-o", str(answers)]
    subprocess.run(command, check=True)
    for package, pattern in _LIBRARIES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        copy = folder / package
        shutil.copytree(Path(spec.origin).parent, copy, dirs_exist_ok=True)
        for library in copy.glob(pattern):
            if not any(word in library.name for word in _NOT_USED):
                count = _replace(library)
                print(f"# {library.name}: {count} places")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    print(f"export {_MARK}=1 LD_PRELOAD={answers} PYTHONPATH={path}")


def _replace(library: Path) -> int:
    """Make every `cpuid` of a library a breakpoint; how many there were."""
    listing = _output("objdump", "-d", "--no-show-raw-insn", str(library))
    addresses = re.findall(r"^ *([0-9a-f]+):\s+cpuid\b", listing, re.MULTILINE)
    data = bytearray(library.read_bytes())
    for address in addresses:
        at = _file_offset(library, int(address, 16))
        if data[at : at + 2] != _CPUID:
            raise ValueError(f"{library.name}: no cpuid at {address}")
        data[at : at + 2] = _BREAKPOINT
    library.write_bytes(data)
    return len(addresses)


def _file_offset(library: Path, address: int) -> int:
    for line in _output("readelf", "-lW", str(library)).splitlines():
        if line.strip().startswith("LOAD"):
            offset, virtual, _, size = (int(word, 16) for word in line.split()[1:5])
            if virtual <= address < virtual + size:
                return address - virtual + offset
    raise ValueError(f"{library.name}: {address:#x} is in no segment")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
