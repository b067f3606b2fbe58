"""Models to test on, and transformers, which takes seconds to import and is paid for once."""

from types import ModuleType

import pytest
from tests.model.examples import small_config

from modernbert.model.config import EncoderConfig


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The library, silent."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.fixture(params=["torch kernels", "C kernels"])
def config(request: pytest.FixtureRequest) -> EncoderConfig:
    """A small config for each set of kernels: those in C want heads of 64."""
    if request.param == "torch kernels":
        return small_config()
    return small_config(hidden_size=128, intermediate_size=64)
