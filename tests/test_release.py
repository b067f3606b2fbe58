"""A release: what is built, and that it works where nothing but it is installed.

The slow test builds the wheel, installs it with its dependencies into an empty environment, and
uses it as a new user does; `make test-release` runs it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAX_SDIST_BYTES = 1_000_000
MAX_INSTALLED_BYTES = 150_000_000  # beside torch and what torch needs
DEMO_SECONDS = 60
WANTED = "MODERNBERT_TEST_RELEASE"


def test_what_an_index_page_says() -> None:
    python = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)]
    assert set(python) <= set(PROJECT["classifiers"])
    assert {"Repository", "Documentation", "Issues"} <= PROJECT["urls"].keys()


def test_placeholders_stand_in_one_place() -> None:
    """Whoever publishes the package changes the addresses once."""
    said = PROJECT["urls"]["Repository"]
    others = [path for path in ROOT.glob("*.*") if path.name != "pyproject.toml"]
    assert [p.name for p in others if p.is_file() and said in p.read_text(errors="ignore")] == []


def test_the_links_of_the_readme_work_on_an_index_page() -> None:
    hook = pytest.importorskip("hatchling") and _hook()
    text = "[a](docs/a.md#b), ![c](docs/c.svg), [d](https://e.org/x), [f](#g), [h](mailto:i)"
    assert hook.absolute_links(text, "https://r") == (
        "[a](https://r/blob/main/docs/a.md#b), ![c](https://r/raw/main/docs/c.svg), "
        "[d](https://e.org/x), [f](#g), [h](mailto:i)"
    )
    picture = '<img alt="e" src="docs/e.svg">'
    assert hook.absolute_links(picture, "https://r") == (
        '<img alt="e" src="https://r/raw/main/docs/e.svg">'
    )
    readme = hook.absolute_links((ROOT / "README.md").read_text(), "https://r")
    links = re.findall(r"\]\(([^)\s]+)\)", readme) + re.findall(r'src(?:set)?="([^"]+)"', readme)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_citation_names_the_version_and_the_paper() -> None:
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == PROJECT["version"]
    assert found["authors"] == [{"name": "The modernbert developers"}]
    assert found["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2412.13663"


def _hook() -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    if WANTED not in os.environ:
        pytest.skip(f"{WANTED} is not set; `make test-release` sets it")
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment in which only the wheel and its dependencies are."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
    (wheel,) = built.glob("*.whl")
    # Modules are compiled when they are imported: a tenth of what torch brings is.
    options = ["-q", "--no-compile", "-c", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [place / "bin" / "pip", "install", *options, f"{wheel}[serve]"],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return place / "bin"


@pytest.mark.slow
def test_what_is_in_the_archives(built: Path) -> None:
    (source,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    assert source.stat().st_size < MAX_SDIST_BYTES
    with tarfile.open(source) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "src/modernbert/model/native/modernbert.c" in names
    assert [name for name in names if name.endswith((".safetensors", ".png"))] == []
    with zipfile.ZipFile(wheel) as packed:
        assert "modernbert/recipes/base.toml" in packed.namelist()
        (metadata,) = (name for name in packed.namelist() if name.endswith("METADATA"))
        assert "](docs/" not in packed.read(metadata).decode()


@pytest.mark.slow
def test_the_install_is_light(environment: Path) -> None:
    program = (ROOT / "tests" / "installed_bytes.py").read_text()
    said = subprocess.run(
        [environment / "python", "-c", program], capture_output=True, text=True, check=True
    ).stdout
    sizes = json.loads(said)
    assert sum(sizes.values()) < MAX_INSTALLED_BYTES, sizes
    assert not sizes.keys() & {"pyarrow", "matplotlib", "zstandard"}


@pytest.mark.slow
def test_the_first_minutes_of_a_new_user(environment: Path, tmp_path: Path) -> None:
    """The demo begins to train; a model is described, served, and its page shown."""
    demo = _start(environment, tmp_path, "demo", "demo")
    began = time.monotonic()
    trained = tmp_path / "demo" / "run" / "metrics.jsonl"
    while demo.poll() is None and time.monotonic() - began < 10 * DEMO_SECONDS:
        if trained.exists() and '"kind": "step"' in trained.read_text():
            break
        time.sleep(0.5)
    demo.send_signal(signal.SIGINT)
    _, messages = demo.communicate(timeout=120)
    assert '"kind": "step"' in trained.read_text(), messages
    assert demo.returncode == 130, messages
    told = _run(environment, tmp_path, "info", "demo/tokenizer", "--json")
    assert json.loads(told)["vocab_size"] > 1_000
    assert _run(environment, tmp_path, "recipe", "copy", "start") == "start.toml\n"
    _use(environment, tmp_path, _MAKE_MODEL)
    assert json.loads(_run(environment, tmp_path, "info", "model", "--json"))
    for address in _served(environment, tmp_path, "model"):
        page = urllib.request.urlopen(address, timeout=60).read().decode()
        assert "<html" in page
        assert urllib.request.urlopen(f"{address}/health", timeout=60).status == 200


_MAKE_MODEL = """
from modernbert import Encoder, EncoderConfig, Embedder, Tokenizer
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.model.initialize import initialize
tokenizer = Tokenizer.from_pretrained("demo/tokenizer")
names = ("vocab_size", "mask_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
ids = {name: getattr(tokenizer, name) for name in (*names, "unk_token_id")}
encoder = initialize(Encoder(EncoderConfig.preset("tiny", **ids)), seed=0)
Embedder(encoder, tokenizer, EmbedderSettings()).save_pretrained("model")
"""


def _start(environment: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MODERNBERT"))}
    return subprocess.Popen(
        [environment / "modernbert", *arguments],
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(environment: Path, folder: Path, *arguments: str) -> str:
    process = _start(environment, folder, *arguments)
    said, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    return said


def _use(environment: Path, folder: Path, program: str) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(
        [environment / "python", "-c", program], cwd=folder, env=clean, check=True, timeout=300
    )


def _served(environment: Path, folder: Path, model: str) -> Iterator[str]:
    """The address of a server, which is asked to leave afterwards."""
    server = _start(environment, folder, "serve", model, "--port", "0")
    assert server.stderr is not None
    lines = iter(server.stderr.readline, "")
    yield next(line for line in lines if "serving on" in line).split()[-1]
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode == 0
