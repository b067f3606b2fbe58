"""A small world to pretrain in."""

from pathlib import Path

import pytest
from tests.tasks.small import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for recipes that are not run."""
    return tmp_path_factory.mktemp("output") / "run"
