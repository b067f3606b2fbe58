"""What works without the packages of extras, and what is said where one is needed."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.hidden_modules import result_without
from tests.small_models import config_for

from modernbert.extras import EXTRAS
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.initialize import initialize
from modernbert.tokenizer.train import train

ROOT = Path(__file__).parents[1]
TRAIN = ("pyarrow", "matplotlib", "zstandard")
COMMAND = "run: pip install 'modernbert[train]'"

USE = """
import urllib.request
from pathlib import Path
from threading import Thread
import modernbert
from modernbert import Classifier, Embedder, load
from modernbert.serving.models import load as load_served
from modernbert.serving.server import Server, bind
from modernbert.serving.service import Service
from modernbert.serving.settings import ServingSettings

models, folder = map(Path, sys.argv[1:])
embedder, classifier = models / "embedder", models / "classifier"
found = {
    "kind": type(load(embedder)).__name__,
    "vectors": len(Embedder.from_pretrained(embedder).encode(["a text", "another"])),
    "labels": len(Classifier.from_pretrained(classifier)(["a text"])[0]),
}
listener = bind("127.0.0.1", 0)
service = Service([load_served(embedder, name=None, precision="float32")], ServingSettings())
server = Server(service, listener)
thread = Thread(target=server.run, daemon=True)
service.start()
thread.start()
address = "http://127.0.0.1:%d/embed" % listener.getsockname()[1]
body = json.dumps({"inputs": ["a text"]}).encode()
request = urllib.request.Request(address, body, {"content-type": "application/json"})
found["served"] = len(json.load(urllib.request.urlopen(request, timeout=60))[0])
server.should_exit = True
thread.join(30)
service.close()
found["info"] = json.loads(command("info", embedder, "--json")[1])["vocab_size"] > 0
output = folder / "texts.index"
found["embed"] = command("embed", folder / "texts.csv", embedder, "-o", output)[0]
found["search"] = command("search", output, embedder, "one", "--json")[0]
found["imported"] = sorted(set(sys.modules) & set(HIDDEN))
"""
EXPECTED = {
    "kind": "Embedder",
    "vectors": 2,
    "labels": 2,
    "served": 64,
    "info": True,
    "embed": 0,
    "search": 0,
    "imported": [],
}
# What Windows has not, as far as torch for Linux can do without it.
UNIX = ("fcntl", "resource", "termios", "pwd", "grp")
WINDOWS = """
import os, signal
for name in ("SIGALRM", "setitimer", "ITIMER_REAL", "pthread_sigmask", "SIGKILL"):
    delattr(signal, name)
del os.sched_getaffinity, os.O_NONBLOCK
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedder and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train([f"the square of {i} is {i * i}" for i in range(99)], vocab_size=448)
    config = config_for(tokenizer)
    embedder = Embedder(initialize(Encoder(config), seed=0), tokenizer, EmbedderSettings())
    embedder.save_pretrained(folder / "embedder")
    labels = ClassifierSettings(labels=("bad", "good"))
    initialize(SequenceClassifier(config, labels), seed=0).save_pretrained(folder / "classifier")
    tokenizer.save_pretrained(folder / "classifier")
    return folder


def test_inference_and_serving_need_no_extra_of_training(models: Path, tmp_path: Path) -> None:
    """And what needs one says which."""
    (tmp_path / "texts.csv").write_text("id,text\na,one\nb,two\n")
    (tmp_path / "texts.parquet").write_bytes(b"PAR1")
    (tmp_path / "texts.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    program = """
texts, packed = folder / "texts.parquet", folder / "texts.csv.zst"
found["refused"] = [
    command("embed", texts, embedder, "-o", folder / "vectors.npy"),
    command("embed", folder / "texts.csv", embedder, "-o", folder / "vectors.parquet"),
    command("classify", classifier, "-i", packed),
    command("report", folder),
]
print(json.dumps(found))
"""
    found = result_without(TRAIN, USE + program, models, tmp_path)
    refused = found.pop("refused")
    assert found == EXPECTED
    packages = ("pyarrow", "pyarrow", "zstandard", "matplotlib")
    assert refused == [[2, "", f"error: {each} is not installed; {COMMAND}\n"] for each in packages]
    assert not (tmp_path / "vectors.parquet.unfinished").exists()


def test_inference_and_serving_need_no_unix(models: Path, tmp_path: Path) -> None:
    """Training, which locks its folder, does, and says so."""
    (tmp_path / "texts.csv").write_text("id,text\na,one\nb,two\n")
    program = """
from modernbert.errors import RunError
from modernbert.training.run_folder import locked
try:
    with locked(folder):
        pass
except RunError as error:
    found["training"] = str(error)
print(json.dumps(found))
"""
    found = result_without(UNIX, WINDOWS + USE + program, models, tmp_path)
    assert "on Windows, run it in WSL" in found.pop("training")
    assert found == EXPECTED


def test_a_server_without_its_extra(models: Path) -> None:
    program = "print(json.dumps(command('serve', sys.argv[1])))"
    answer = result_without(["uvicorn"], program, models / "embedder")
    assert answer == [
        2,
        "",
        "error: uvicorn is not installed; run: pip install 'modernbert[serve]'\n",
    ]


def test_the_extras_bring_what_they_are_said_to_bring() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        "faiss": "faiss-cpu",
        "mlflow": "mlflow-skinny",
        "prometheus_client": "prometheus-client",
        "sklearn": "scikit-learn",
        "Stemmer": "PyStemmer",
    }
    for package, extra in EXTRAS.items():
        wanted = {Requirement(each).name for each in project["optional-dependencies"][extra]}
        assert names.get(package, package) in wanted
    base = {Requirement(each).name for each in project["dependencies"]}
    assert not base & {"pyarrow", "matplotlib", "zstandard"}
