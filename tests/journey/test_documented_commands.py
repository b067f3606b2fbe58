"""The commands of the documents run, in the order in which they stand, with small models."""

import shlex
import shutil
from pathlib import Path

import pytest
from tests.journey import documented
from tests.journey.command_line import call
from tests.test_docs import DOCUMENTS, blocks, name_of

# Commands that are not run here, by how they begin, and where else they are.
NOT_RUN = {
    "demo": "tests/journey/test_demo.py runs it",
    "serve": "tests/serving runs it; it does not end",
    "push": "needs the hub; tests/test_hub.py has a hub of its own",
    "evaluate": "needs a suite's data; tests/evaluation runs it",
    "export onnx": "takes half a minute; tests/export runs it for every kind of model",
    "export openvino": "takes half a minute; tests/export runs it for every kind of model",
    "pretrain continue": "needs a published model",
    "finetune classify recipe.toml": "reviews.toml is run by the same verb",
    "finetune classify -m runs/books/model --train few.csv": "SetFit's page has it",
    "finetune classify --model MODEL --train few.csv": "SetFit's page has it",
    "embed texts MODEL -o parts.npy --tasks 8": "needs all eight tasks; tests/cli runs it",
    "average runs/phased": "needs the checkpoints of a run; tests/cli runs it",
}
NETWORK = ("s3://", "owner/")


def _commands(document: Path) -> list[list[str]]:
    """The arguments of each call of `modernbert` alone in the blocks of commands."""
    lines = [
        shlex.split(line, comments=True)
        for block in blocks(document, "bash", "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("modernbert ")
    ]
    return [arguments for _, *arguments in lines if not _is_left_out(" ".join(arguments))]


def _is_left_out(line: str) -> bool:
    return line.startswith(tuple(NOT_RUN)) or any(each in line for each in NETWORK)


WITH_COMMANDS = [document for document in DOCUMENTS if _commands(document)]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    documented.write_all(folder)
    return folder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name_of)
def test_commands_run(
    document: Path, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(everything, tmp_path / "here")
    monkeypatch.chdir(folder)
    made: set[str] = set()
    for arguments in _commands(document):
        output = _output_of(arguments)
        if output not in made:  # a command makes anew what others of the document may only read
            _remove(Path(output))
        made.add(output)
        if arguments[0] == "prepare":
            recipe = Path("recipe.toml")
            recipe.write_text(recipe.read_text().replace('"shards"', f'"{output}"'))
        said = call(*(_meant(word, arguments) for word in arguments))
        assert said.exit_code == 0, f"modernbert {shlex.join(arguments)}\n{said.stderr}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _output_of(arguments: list[str]) -> str:
    """What a command writes; a name that nothing has if it names no output."""
    if arguments[0] == "pretrain":
        return "runs/mine"
    if arguments[0] == "prepare" or arguments[:2] == ["tokenizer", "train"]:
        return arguments[2] if arguments[0] == "prepare" else arguments[3]
    named = [place for place, word in enumerate(arguments) if word in ("-o", "--output")]
    return arguments[named[0] + 1] if named else "none"


def _meant(word: str, arguments: list[str]) -> str:
    """What a placeholder stands for, and what is enough of a model's training here."""
    verb = arguments[0]
    names = {"MODEL": documented.MODEL_OF.get(verb, "runs/mine/model"), "FOLDER": "runs/mine/model"}
    if arguments[:2] == ["finetune", "regress"]:
        names["train.csv"] = "numbers.csv"
    return names.get(word, word)
