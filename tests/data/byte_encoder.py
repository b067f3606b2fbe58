"""A tokenizer for tests whose ids are the bytes of the text; importable in worker processes."""

import os
import signal
import time
from collections.abc import Callable, Sequence

import numpy as np

Encode = Callable[[list[str]], Sequence[np.ndarray]]


def encode(texts: list[str]) -> list[np.ndarray]:
    return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]


def make_encode() -> Encode:
    return encode


def make_slow_encode() -> Encode:
    def slow_encode(texts: list[str]) -> list[np.ndarray]:
        time.sleep(0.05)
        return encode(texts)

    return slow_encode


def make_deadly_encode() -> Encode:
    """Kills its own process at a certain text, as the system does when memory runs out."""

    def deadly_encode(texts: list[str]) -> list[np.ndarray]:
        if any("poison" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(texts)

    return deadly_encode


def make_broken_encode() -> Encode:
    raise ValueError("no such tokenizer")
