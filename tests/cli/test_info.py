"""`modernbert info`: what each kind of path holds, as text and as JSON."""

from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run
from tests.tasks.pretraining.small import World

import modernbert
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.model.native import loading
from modernbert.settings import to_toml
from modernbert.tokenizer.tokenizer import Tokenizer

BASE_RECIPE = """
output = "run"
tokenizer = "nowhere/tokenizer"
sources = [{ shards = "nowhere/shards" }]
model = { preset = "base" }
batch = { bins_per_step = 576 }
training = { total_tokens = 1_000_000_000, schedule = { peak_learning_rate = 8e-4 } }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture
def recipe(tmp_path: Path, world: World) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(world.recipe(tmp_path / "run")))
    return file


def test_a_model(run: Run, tmp_path: Path) -> None:
    config = EncoderConfig.preset("tiny", vocab_size=512)
    MaskedLanguageModel(config).save_pretrained(tmp_path)
    described = run("info", tmp_path, "--json").json
    assert described["kind"] == "model"
    assert described["parameters"] == config.num_parameters(head=False)
    assert described["parameters_with_head"] == config.num_parameters(head=True)
    assert described["layer_kinds"] == ["global", "local", "local"] * 2
    assert described["layers"] == 6 and described["hidden_size"] == 256
    assert described["forward_flops_a_token"]["512"] == round(flops_per_token(config, 512))
    shown = run("info", tmp_path).stdout
    assert "layer kinds           global, local, local, global, local, local\n" in shown


def test_a_recipe(run: Run, recipe: Path, world: World) -> None:
    described = run("info", recipe, "--json").json
    assert described["kind"] == "recipe" and "tokenizer" not in described
    assert described["model"]["vocab_size"] == 448
    assert described["model"]["layer_kinds"] == ["global", "local"]
    assert described["training"]["tokens_a_step"] == 3 * 128
    assert described["training"]["steps"] == 12
    settings = described["settings"]
    assert settings["sources"][0] == {"shards": str(world.sources[0]), "weight": 2.0}
    assert settings["dropout"] == 0.1 and settings["masking"] == {"rate": 0.3}  # resolved
    assert "bins per step         3\n" in run("info", recipe).stdout


def test_a_recipe_before_its_tokenizer_is_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE_RECIPE)
    described = run("info", tmp_path / "base.toml", "--json").json
    assert described["tokenizer"].startswith("nowhere/tokenizer: no such folder")
    assert described["model"]["parameters_with_head"] == 149_655_232
    assert described["model"]["layer_kinds"].count("global") == 8
    assert described["training"]["tokens_a_step"] == 4_718_592
    # A step is three forwards; 30% of the tokens pay for the vocabulary.
    base = EncoderConfig.preset("base")
    assert described["training"]["flops_a_token"] == pytest.approx(
        3 * (flops_per_token(base, 1024) + 0.3 * 2 * 768 * (768 + 50_368)), rel=1e-6
    )
    assert described["training"]["flops"] == described["training"]["flops_a_token"] * 10**9


def test_shards(run: Run, world: World) -> None:
    described = run("info", world.held_out, "--json").json
    assert described["kind"] == "token shards"
    assert described["documents"] == 66 and described["vocab_size"] == 448
    assert described["tokens_a_document"]["documents_by_length"]["1 to 128"] > 0


def test_a_tokenizer(run: Run, world: World) -> None:
    described = run("info", world.tokenizer, "--json").json
    tokenizer = Tokenizer.from_pretrained(world.tokenizer)
    assert described["kind"] == "tokenizer"
    assert described["fingerprint"] == tokenizer.fingerprint
    assert described["special_tokens"]["[MASK]"] == tokenizer.mask_token_id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("output = 3", "key 'sources' is missing"),
        ("outputt = 'x'", "unknown key 'outputt'; did you mean 'output'?"),
        ("output = ", "not a readable TOML file"),
    ],
)
def test_a_wrong_recipe(run: Run, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    answer = run("info", tmp_path / "recipe.toml")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert message in answer.stderr and answer.stderr.count("\n") == 1


def test_paths_that_hold_nothing_known(run: Run, tmp_path: Path) -> None:
    assert "no such file or folder" in run("info", tmp_path / "nowhere").stderr
    answer = run("info", tmp_path)
    assert answer.exit_code == 2 and "contains nothing that is known here" in answer.stderr


def test_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modernbert.cli.info._SECONDS", 0.01)
    described = run("info", "--machine", "--json").json
    assert described["device"]
    assert described["kernels"] == loading.describe(loading.choice()).removeprefix("C kernels: ")
    assert described["precision_of_auto"] in ("float32", "bfloat16")
    assert described["attention_of_auto"]
    speeds = {line["precision"]: line for line in described["gflops_of_a_core"]}
    assert set(speeds) == {"float32", "bfloat16", "int8"}
    assert speeds["float32"]["torch"] > 0
    assert (speeds["float32"]["ours"] == "none") is (loading.library() is None)
    assert "kernels present" in run("info", "--machine").stdout


@pytest.mark.parametrize("arguments", [[], ["a", "--machine"]])
def test_a_path_or_the_machine(run: Run, arguments: list[str]) -> None:
    answer = run("info", *arguments)
    assert answer.exit_code == 2
    assert "give either a PATH or --machine" in answer.stderr


def test_an_index_and_a_file_of_vectors(run: Run, tmp_path: Path) -> None:
    vectors = np.eye(3, dtype=np.float32)
    modernbert.Index.build(tmp_path / "texts.index", [vectors], kind="int8")
    described = run("info", tmp_path / "texts.index", "--json").json
    assert (described["kind"], described["documents"], described["stored"]) == (
        "search index",
        3,
        "int8",
    )
    np.save(tmp_path / "v.npy", vectors)
    assert run("info", tmp_path / "v.npy", "--json").json["dimensions"] == 3


def test_the_use_of_a_model_and_the_folder_of_a_run(run: Run, tmp_path: Path) -> None:
    config = EncoderConfig.preset("tiny", vocab_size=512)
    initialize(MaskedLanguageModel(config), seed=0).save_pretrained(tmp_path / "run" / "model")
    assert run("info", tmp_path / "run", "--json").json["finished"]
    described = run("info", tmp_path / "run" / "model", "--json").json
    assert described["use"] == "a masked language model"
    answer = run("classify", tmp_path / "run", "a text")
    assert str(tmp_path / "run" / "model") in answer.stderr
    assert "fine-tune it with `modernbert finetune classify`" in answer.stderr


@pytest.mark.parametrize("tasks", ['{"name": "a"}', "[3]", "[{}]", "7"])
def test_results_of_an_evaluation(run: Run, tmp_path: Path, tasks: str) -> None:
    results = tmp_path / "results.json"
    results.write_text('{"model": "m", "average": 0.5, "tasks": [{"name": "a", "score": 0.5}]}')
    assert run("info", tmp_path).stdout.split()[-2:] == ["a", "0.5"]
    results.write_text(f'{{"tasks": {tasks}}}')
    answer = run("info", tmp_path)
    assert answer.exit_code == 2
    assert answer.stderr.endswith("results.json: tasks: expected a list of names with scores\n")
