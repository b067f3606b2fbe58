"""A small world to pretrain in."""

from pathlib import Path

import pytest
from tests.tasks.pretraining.small import World

from modernbert.report import run_report


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for recipes that are not run."""
    return tmp_path_factory.mktemp("output") / "run"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a second, and there are many of them: their report is the page alone."""
    monkeypatch.setattr(run_report, "_draw", lambda *_: None)
