"""The files for containers and hosted checks: they can be read, and what they name is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from modernbert.serving.telemetry import Telemetry

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
YAML_FILES = sorted([*DOCKER.rglob("*.yml"), *(ROOT / ".github").rglob("*.yml")])
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_have_no_root_and_say_whether_they_are_well(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last and "/health" in last
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert [name for name in copied.split() if not (ROOT / name).exists()] == []


def test_the_image_for_cpus_has_no_compiler() -> None:
    text = (DOCKER / "cpu.Dockerfile").read_text(encoding="utf-8")
    assert "gcc" not in text[text.rindex("FROM ") :]


def test_no_kernels_of_another_machine_come_into_an_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"**/*.so", ".venv"} <= set(ignored)


def test_the_dashboard_asks_the_data_source_that_there_is() -> None:
    sources = yaml.safe_load((DOCKER / "grafana" / "datasource.yml").read_text(encoding="utf-8"))
    known = {each["uid"] for each in sources["datasources"]}
    board = json.loads((DOCKER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    assert {panel["datasource"]["uid"] for panel in board["panels"]} <= known


def test_files_of_the_composition_are_there() -> None:
    found = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
    for service in found["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DOCKER / source).exists()
    assert found["services"]["modernbert"]["read_only"] is True


def test_the_dashboard_asks_for_metrics_that_the_server_has() -> None:
    telemetry = Telemetry()
    telemetry.requests.labels("/embed").inc()
    telemetry.failures.labels("validation").inc()
    served = set(re.findall(r"^(te_\w+)", telemetry.render(), re.MULTILINE))
    board: dict[str, Any] = json.loads((DOCKER / "grafana" / "dashboard.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"te_\w+", target["expr"])
    }
    assert asked and asked <= served


def test_workflows_call_what_the_makefile_has() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        called = re.findall(r"run: make (\S+)", path.read_text(encoding="utf-8"))
        assert set(called) <= targets
