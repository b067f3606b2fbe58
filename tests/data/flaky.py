"""An object storage for tests, `flaky://`, whose files fail, stall, and come short or changed."""

import io
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

# What happens to the next openings of a file, by its name; then it is as it should be.
faults: dict[str, deque[str]] = {}
opened: Counter[str] = Counter()
# Set when a test ends, for what still stalls.
released = threading.Event()


class FlakyFileSystem(AbstractFileSystem):
    """Reads from this machine's folders."""

    protocol = "flaky"
    cachable = False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        assert mode == "rb"
        name = Path(path).name
        opened[name] += 1
        content = Path("/" + self._strip_protocol(path).lstrip("/")).read_bytes()
        fault = faults[name].popleft() if faults.get(name) else ""
        if fault == "fail":
            raise OSError("503 slow down")
        if fault == "truncate":
            content = content[: len(content) // 2]
        if fault == "flip":
            content = bytes([content[0] ^ 1]) + content[1:]
        return _Stalling(content) if fault == "stall" else io.BytesIO(content)


class _Stalling(io.BytesIO):
    """The first half comes, and then nothing more."""

    def read(self, size: int | None = -1, /) -> bytes:
        half = len(self.getbuffer()) // 2
        if self.tell() < half:
            return super().read(half - self.tell())
        released.wait(30)
        return super().read(size)


def register() -> None:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


def reset() -> None:
    """Forget faults and counts; what stalls goes on."""
    released.set()
    released.clear()
    faults.clear()
    opened.clear()


def plan(name: str, *planned: str) -> None:
    """What is to happen to the next openings of a file."""
    faults[name] = deque(planned)
