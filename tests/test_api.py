"""The functions of the package from a corpus in memory to scores, and what a stop does to them."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import modernbert
from modernbert.errors import InputError, SettingsError
from modernbert.tokenizer.train import train
from modernbert.training.interruption import Interrupted

TEXTS = ["a good film, well told", "a bad film", "a fine story, good to read", "a dull story"] * 30
ROWS = {"text": TEXTS, "label": ["good", "bad"] * 60}
SMALL = {
    "preset": "tiny",
    "num_layers": 2,
    "hidden_size": 64,
    "num_heads": 1,
    "intermediate_size": 64,
    "packing": {"max_seqlen": 32, "bin_tokens": 128},
    "bins_per_step": 1,
    "peak_learning_rate": 1e-3,
    "training.precision": "float32",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and shards, made of a dictionary of columns."""
    world = tmp_path_factory.mktemp("world")
    tokenizer = modernbert.train_tokenizer({"text": TEXTS}, world / "tokenizer", vocab_size=448)
    assert tokenizer.vocab_size == 448
    made = modernbert.prepare(
        [{"text": text} for text in TEXTS],
        world / "shards",
        world / "tokenizer",
        held_out=0.2,
        workers=1,
    )
    assert made.train.num_documents + made.held_out.num_documents == len(TEXTS)
    return world


def test_a_tokenizer_is_extended_in_python(world: Path, tmp_path: Path) -> None:
    tokenizer = modernbert.Tokenizer.from_pretrained(world / "tokenizer")
    assert tokenizer.fingerprint == train(TEXTS, vocab_size=448).fingerprint
    extended = modernbert.extend_tokenizer(world / "tokenizer", ["[CODE]"], tmp_path / "extended")
    saved = modernbert.Tokenizer.from_pretrained(tmp_path / "extended")
    assert saved.vocab_size == tokenizer.vocab_size and tokenizer.token_to_id("[CODE]") is None
    assert saved.token_to_id("[CODE]") == extended.token_to_id("[CODE]") is not None
    assert modernbert.extend_tokenizer(tokenizer, ["[CODE]"]).fingerprint == extended.fingerprint


def pretrain(world: Path, output: Path, **options: Any) -> Any:
    return modernbert.pretrain(
        tokenizer=world / "tokenizer",
        output=output,
        shards=world / "shards",
        held_out=world / "shards/held-out",
        **{"total_tokens": 1e3, **SMALL, **options},
    )


@pytest.fixture(scope="module")
def pretrained(world: Path) -> Any:
    return pretrain(world, world / "run")


def test_pretraining(world: Path, pretrained: Any) -> None:
    assert pretrained.status == "finished" and pretrained.tokens >= 1000
    assert pretrained.report.exists() and "held_out_loss" in pretrained.evaluation
    assert modernbert.load(pretrained.model)
    again = pretrain(world, world / "run")
    assert again.status == "already_finished"
    assert again.evaluation == pytest.approx(pretrained.evaluation)
    lines = repr(again).splitlines()
    assert lines[0].split()[:4] == ["status", "steps", "tokens", "held_out_loss"]
    assert (
        lines[2] == f"model: {world}/run/model"
        and "<td>already_finished</td>" in again._repr_html_()
    )


def test_a_stopped_pretraining_raises_and_goes_on(world: Path, tmp_path: Path) -> None:
    """Code after the call must not take a stopped run for a finished one."""

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped by signal 2, all of it saved") as stopped:
        pretrain(world, tmp_path / "run", observers=[stop])
    assert isinstance(stopped.value, Interrupted) and not (tmp_path / "run/model").exists()
    assert pretrain(world, tmp_path / "run").status == "finished"
    weights = [each / "model/model.safetensors" for each in (tmp_path / "run", world / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_fine_tuning_and_evaluating(pretrained: Any, tmp_path: Path) -> None:
    results = modernbert.finetune(
        "classify",
        model=pretrained,
        train=ROWS,
        dev="25%",
        output=tmp_path / "labels",
        epochs=1,
        precision="float32",
    )
    assert results.model == tmp_path / "labels/model"
    assert repr(results).splitlines()[0].startswith("split") and "dev" in repr(results)
    scores = modernbert.evaluate(results, ROWS)
    assert 0 <= scores.scores["classify"]["accuracy"] <= 1
    assert str(scores).splitlines()[-1] == f"model: {results.model}"
    (labels,) = modernbert.load(results.model, precision="float32")(["a good film"])
    assert {each.label for each in labels} == {"good", "bad"}


def test_a_sweep_from_lists(pretrained: Any, tmp_path: Path) -> None:
    results = modernbert.finetune(
        "regress",
        {
            "model": str(pretrained.model),
            "data": {"train": {"text": TEXTS, "score": [0, 1.5] * 60}},
        },
        dev={"text": TEXTS[:8], "score": [0, 1] * 4},
        output=tmp_path / "numbers",
        epochs=[1, 2],
        seeds=2,
        processes=1,
        batch_size=64,
        precision="float32",
    )
    assert [(each.epochs, each.seed) for each in results.outcomes] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert "spearman" in repr(results) and "±" in results._repr_html_()


def test_progress_is_shown_when_asked_for(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(world, tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    pretrain(world, tmp_path / "b", progress=True)
    assert "held-out loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_token": 5}, "unknown key 'total_token'; did you mean 'total_tokens'"),
        ({"total_tokens": "5"}, "total_tokens: got '5', expected a whole number"),
        ({"total_tokens": 1.5}, "total_tokens: got 1.5, expected a whole number"),
    ],
)
def test_mistakes(world: Path, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        pretrain(world, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["peak_learning_rate", "total_tokens", "bins_per_step", "preset"])
def test_a_setting_without_a_default_is_asked_for_by_its_name(name: str, tmp_path: Path) -> None:
    given = {"shards": tmp_path, "output": tmp_path / "run", "total_tokens": 1_000, **SMALL}
    del given[name]
    with pytest.raises(SettingsError, match=name):
        modernbert.pretrain(tokenizer="t", **given)


def test_columns_are_for_rows(pretrained: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text: is for rows, but glue is a suite"):
        modernbert.evaluate(pretrained, "glue", text="a", output=tmp_path)
