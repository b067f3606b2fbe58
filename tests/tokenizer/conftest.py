"""Tokenizers to test on: a small trained one, and the published one where it is at hand."""

import inspect
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

SAMPLES = [
    "The capital of France is [MASK].",
    "  two spaces, then\n    four\n\t\ttabs \n\n\n end   ",
    "def f(x):\n        return {'a': [x ** 2, 0x1F], \"b\": None}\n",
    "cafe\u0301 caf\u00e9 x\u0323\u0302y a\u0327\u0301\u0300 \u212b \u0344",
    "\u1100\u1161\u11a8 \u0e01\u0e33 \u0939\u093f\u0928\u094d\u0926\u0940 \u4e2d\u3002\n\u6587",
    "\U0001f600\U0001f468\u200d\U0001f469 \ufb01 \u00a0\u2003\u3000 \x00\x1c\x85\ufeff",
    "[CLS] [SEP][PAD]  [MASK]\n[MASK] <|endoftext|> <|padding|> |||IP_ADDRESS||| [unused7]",
    "don't WE'LL they've it's 12,345.67e-8 -- ... !!! ------------------------------",
    " " * 60 + "x" + " " * 25 + "\n" * 5,
    "",
    " ",
    "\n",
]
"""Texts that a tokenizer could easily get wrong."""


@pytest.fixture(scope="session")
def python_sources() -> list[str]:
    """Some code and prose that every Python has: the sources of a few standard modules."""
    import argparse
    import difflib
    import textwrap
    import typing

    return [inspect.getsource(module) for module in (argparse, difflib, textwrap, typing)]


@pytest.fixture(scope="session")
def small(python_sources: list[str]) -> Tokenizer:
    """A tokenizer of 1,024 entries trained on Python's own sources."""
    return train(python_sources, vocab_size=1024)


@pytest.fixture(scope="session")
def published_file(shared_data: Path) -> Path:
    """The published ModernBERT tokenizer."""
    return shared_data / "tokenizer" / "modernbert.json"


@pytest.fixture(scope="session")
def published(published_file: Path) -> Tokenizer:
    """The published ModernBERT tokenizer, loaded."""
    return Tokenizer.from_file(published_file)


@pytest.fixture(scope="session")
def real_texts(shared_data: Path, python_sources: list[str]) -> list[str]:
    """The beginnings of texts of every real corpus, code and oddities."""
    texts = [*SAMPLES, *python_sources]
    for path in sorted(shared_data.rglob("*.jsonl.xz")):
        texts += _beginning(path, num_characters=100_000)
    return texts


def _beginning(path: Path, num_characters: int) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        while num_characters > 0 and (line := lines.readline()):
            row = json.loads(line)
            texts = [value for value in row.values() if isinstance(value, str)]
            for text in [*texts, " ".join(row.get("tokens", ()))]:
                yield text[:num_characters]
                num_characters -= len(text)
