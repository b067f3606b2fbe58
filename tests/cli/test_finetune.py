"""`modernbert finetune`: options and recipes, what a person sees, and what becomes of mistakes."""

from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.tasks.labels import labelled

from modernbert.tasks.finetune import VERBS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Path, Path]:
    return (
        labelled.write_rows(tmp_path / "train.jsonl", labelled.reviews(24)),
        labelled.write_rows(tmp_path / "dev.jsonl", labelled.reviews(12, seed=1)),
    )


def test_a_first_command(
    run: Run, model: Path, rows: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("--model", model, "--train", rows[0], "--dev", rows[1], "--epochs", 1)
    answer = run("finetune", "classify", *command)
    assert answer.exit_code == 0
    assert answer.stdout == "runs/classify-train/model\n"
    assert "labels: bad (" in answer.stderr and "accuracy 0." in answer.stderr
    classified = run("classify", "runs/classify-train/model", "the film was fine", "--json")
    assert {each["label"] for each in classified.json["labels"]} == {"good", "bad"}


def test_a_recipe_and_options_over_it(
    run: Run, model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "{model}"\noutput = "{tmp_path}/out"\n[data]\ntrain = "{rows[0]}"\n'
        f'dev = "{rows[1]}"\n[training]\nepochs = 9\nprecision = "float32"\n'
    )
    options = ("--epochs", 1, "--lr", "1e-4", "--lr", "1e-3", "--processes", 1)
    answer = run("finetune", "classify", recipe, *options, "--json")
    assert answer.exit_code == 0
    assert answer.json["model"] == f"{tmp_path}/out/model"
    assert [each["learning_rate"] for each in answer.json["combinations"]] == [1e-4, 1e-3]
    assert {each["epochs"] for each in answer.json["runs"]} == {1}


def test_questions_are_learnt_and_asked(run: Run, model: Path, tmp_path: Path) -> None:
    row = {
        "question": "how was it",
        "context": "the film was good",
        "answers": [{"text": "good", "answer_start": 13}],
    }
    train = labelled.write_rows(tmp_path / "train.jsonl", [row] * 8)
    options = ("--epochs", 20, "--lr", 5e-3, "--batch-size", 8, "--output", tmp_path / "out")
    assert run("finetune", "answer", "-m", model, "--train", train, *options).exit_code == 0
    (tmp_path / "text.txt").write_text("the film was good")
    command = ("answer", tmp_path / "out" / "model", "--context", tmp_path / "text.txt")
    found = run(*command, "how was it", "--json").json
    assert found["answer"]["text"] == "good" and found["answer"]["start"] == 13
    assert "good  (" in run(*command, "how was it").stdout
    missing = run("answer", tmp_path / "out" / "model", "--context", tmp_path / "none.txt", "how")
    assert missing.exit_code == 2 and "none.txt: cannot be read" in missing.stderr


def test_windows_share_so_many_tokens(run: Run, model: Path, tmp_path: Path) -> None:
    row = {
        "question": "how was it",
        "context": "the film was a story of seven people " * 9 + "good",
        "answers": [{"text": "good", "answer_start": 9 * 37}],
    }
    train = labelled.write_rows(tmp_path / "train.jsonl", [row] * 2)
    options = ("-m", model, "--train", train, "--epochs", 1, "--max-seqlen", 32, "--json")
    tokens = {
        stride: run(
            "finetune", "answer", *options, "--stride", stride, "-o", tmp_path / str(stride)
        ).json["best"]["tokens"]
        for stride in (0, 12)
    }
    assert tokens[12] > 1.3 * tokens[0]  # what two windows share is read twice
    (tmp_path / "text.txt").write_text(row["context"])
    command = ("answer", tmp_path / "0" / "model", "-c", tmp_path / "text.txt", "how was it")
    assert run(*command, "--stride", 3).exit_code == 0
    refused = run(*command, "--stride", 900)
    assert refused.exit_code == 2 and "stride: got 900, expected less than" in refused.stderr


MISTAKES = {
    "no model": ((), "--model: is missing; name a model"),
    "no rows": (("-m", "MODEL"), "--train: is missing; name the rows"),
    "no file": (("-m", "MODEL", "--train", "none.csv"), "none.csv: no such file or folder"),
    "no folder": (("-m", "none/at/all", "--train", "TRAIN"), "none/at/all: no such folder"),
    "no column": (
        ("-m", "MODEL", "--train", "TRAIN", "--label", "lable"),
        "no column 'lable'; did you mean 'label'?",
    ),
    "epochs": (("-m", "MODEL", "--train", "TRAIN", "--epochs", "0"), "epochs: got 0, expected 1"),
    "freeze": (
        ("-m", "MODEL", "--train", "TRAIN", "--freeze-layers", "3"),
        "freeze_layers: got 3, expected at most 2",
    ),
    "stride": (("-m", "MODEL", "--train", "TRAIN", "--stride", "-1"), "stride: got -1, expected 0"),
    "seeds": (("-m", "MODEL", "--train", "TRAIN", "--lr", "1", "--lr", "1"), "twice"),
}


def test_what_was_refused_does_not_hold_the_folder(
    run: Run, model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    command = ("finetune", "classify", "-m", model, "--train", rows[0], "-o", tmp_path / "out")
    quick = ("--epochs", 1, "--freeze-layers")
    assert run(*command, *quick, 3).exit_code == 2
    assert run(*command, *quick, 2).exit_code == 0


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    case: str,
    run: Run,
    model: Path,
    rows: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = MISTAKES[case]
    names = {"MODEL": str(model), "TRAIN": str(rows[0])}
    verb = "answer" if case == "stride" else "classify"
    answer = run("finetune", verb, *(names.get(each, each) for each in options))
    assert answer.exit_code == 2
    assert message in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("answer", "--class-weights"),
        ("regress", "--stride"),
        ("tag", "--pooling"),
        ("retrieve", "--dim"),
        ("late-interaction", "--matryoshka"),
        ("rerank", "--query-prompt"),
    ],
)
def test_an_option_without_effect_does_not_exist(run: Run, verb: str, option: str) -> None:
    answer = run("finetune", verb, option, "1")
    assert answer.exit_code == 2 and f"No such option: {option}" in answer.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_settings_that_all_share(run: Run, verb: str) -> None:
    shown = run("finetune", verb, "--help").stdout
    for option in ("--model", "--train", "--dev", "--lr", "--patience", "--seeds", "--sharding"):
        assert option in shown


def test_values_over_a_recipe(
    run: Run, model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "{model}"\noutput = "{tmp_path}/out"\n[training]\nepochs = 9\n')
    values = ("training.epochs=1", "precision=float32", f"train={rows[0]}", "sweep.seeds=3")
    answer = run("finetune", "classify", recipe, *values, "--json")
    assert answer.exit_code == 0
    assert [(each["epochs"], each["seed"]) for each in answer.json["runs"]] == [(1, 3)]
    wrong = run("finetune", "classify", recipe, "training.epoch=1", "--train", rows[0])
    assert wrong.exit_code == 2
    assert wrong.stderr.endswith("training: unknown key 'epoch'; did you mean 'epochs'?\n")
    no_value = run("finetune", "classify", recipe, "epochs")
    assert "got 'epochs', expected KEY=VALUE" in no_value.stderr
