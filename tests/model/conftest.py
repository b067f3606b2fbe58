"""Models to test on, each variant of the kernels in turn, and transformers, imported once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
from tests.model.examples import small_config

from modernbert.model.config import EncoderConfig
from modernbert.model.native import loading

# All that this machine can run, unless the whole suite is to be run with one.
VARIANTS = [variant.name for variant in loading.this_machine().usable()]
if os.environ.get(loading.SWITCH):
    VARIANTS = [loading.variant_name()]


@contextmanager
def kernels(variant: str) -> Iterator[None]:
    """Run with a variant of the C kernels, or with torch's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(loading.SWITCH, "0" if variant == "torch" else variant)
        _choose_again()
        yield
    _choose_again()


def _choose_again() -> None:
    loading.choice.cache_clear()
    loading.library.cache_clear()


@pytest.fixture(scope="module", params=VARIANTS or ["torch"])
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a variant of the C kernels, which are in use; each that the machine can run."""
    with kernels(request.param):
        if loading.library() is None:
            pytest.skip(loading.describe(loading.choice()))
        yield request.param


@pytest.fixture(scope="module")
def bfloat16_variant(variant: str) -> str:
    """The same, where it computes in bfloat16."""
    if not loading.has_bfloat16():
        pytest.skip(f"{variant} has no bfloat16")
    return variant


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The library, silent."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.fixture(params=dict.fromkeys(["torch", *VARIANTS]))
def config(request: pytest.FixtureRequest) -> Iterator[EncoderConfig]:
    """A small config for each set of kernels, which are in use: those in C want heads of 64."""
    sizes = {} if request.param == "torch" else {"hidden_size": 128, "intermediate_size": 64}
    with kernels(request.param):
        yield small_config(**sizes)
