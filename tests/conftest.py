"""What all tests share: fresh kernels, where the local corpora are, one thread for torch."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from modernbert import files
from modernbert.model.native import build

# Before any test module asks for the kernels: none runs on objects of other sources.
BUILD = None
if build.has_sources() and "PYTEST_XDIST_WORKER" not in os.environ:
    BUILD = build.build()


# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    # Two workers on two cores: one thread each, and figures that do not depend on the load.
    torch.set_num_threads(1)
    files.PATIENCE_SECONDS = 0.2  # who is refused here is refused after seconds otherwise
    if BUILD is not None and BUILD.failures and not BUILD.built:
        pytest.exit(str(BUILD), returncode=1)  # or else all their tests would be skipped
    if BUILD is not None and (BUILD.error or BUILD.failures):
        print(BUILD)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread again after a test whose script takes others: sums depend on their number."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora, which is no part of the repository; skips where it is absent."""
    beside_checkout = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("MODERNBERT_TEST_DATA", beside_checkout))
    if not folder.is_dir():
        pytest.skip("the shared corpora are absent; MODERNBERT_TEST_DATA can name their folder")
    return folder
