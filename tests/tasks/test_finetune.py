"""`finetune` from data that Python holds: frames, tables and rows, for each verb."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from tests.small_models import write_masked_model

from modernbert import finetune, load
from modernbert.errors import InputError, SettingsError
from modernbert.tasks.finetune import VERBS
from modernbert.tokenizer.train import train
from modernbert.training import trackers

TEXTS = ["a good film", "a bad film", "a fine story", "a dull story"] * 2
RANKED = {"query": TEXTS, "positive": TEXTS[::-1]}
COLUMNS: dict[str, dict[str, list[Any]]] = {
    "classify": {"text": TEXTS, "label": ["good", "bad"] * 4},
    "regress": {"text": TEXTS, "score": [0.5 * i for i in range(8)]},
    "tag": {"tokens": [text.split() for text in TEXTS], "tags": [["O", "B-X", "O"]] * 8},
    "answer": {
        "question": ["which film"] * 8,
        "context": TEXTS,
        "answers": [{"text": [text[:6]], "answer_start": [0]} for text in TEXTS],
    },
    "retrieve": RANKED,
    "late-interaction": RANKED,
    "sparse": RANKED,
    "rerank": {**RANKED, "negative": TEXTS},
}


def rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def pandas_frame(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def polars_frame(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def lazy_frame(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("polars").LazyFrame(columns)


def data_set(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


MAKERS: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "columns": dict,
    "rows": rows,
    "pandas": pandas_frame,
    "polars": polars_frame,
    "polars, lazy": lazy_frame,
    "pyarrow": pyarrow.table,
    "datasets": data_set,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tokenizer = train(TEXTS * 3, vocab_size=448)
    return write_masked_model(
        folder, tokenizer, hidden_size=32, intermediate_size=32, max_seqlen=32, num_layers=1
    )


def recipe(start: Path, output: Path, **data: Any) -> dict[str, Any]:
    training = {"epochs": 1, "precision": "float32"}
    return {"model": str(start), "output": str(output), "data": data, "training": training}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_learns_from_a_frame(verb: str, start: Path, tmp_path: Path) -> None:
    frame = pandas_frame(COLUMNS[verb])
    results = finetune(verb, recipe(start, tmp_path / "out", train=frame, dev=frame))
    assert results.combinations
    load(tmp_path / "out" / "model", precision="float32")


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_is_learnt_from_each_kind_of_object_and_from_a_file(
    kind: str, start: Path, tmp_path: Path
) -> None:
    made = MAKERS[kind](COLUMNS["tag"])
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(COLUMNS["tag"])))
    finetune("tag", recipe(start, tmp_path / "object", train=made))
    finetune("tag", recipe(start, tmp_path / "file", train=file))
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("object", "file")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_later_start_has_the_same_rows_or_is_refused(start: Path, tmp_path: Path) -> None:
    columns = COLUMNS["classify"]
    first = finetune("classify", recipe(start, tmp_path / "out", train=columns))
    again = finetune("classify", recipe(start, tmp_path / "out", train=rows(columns)))
    assert again.combinations == first.combinations
    other = {"text": TEXTS, "label": ["bad", "good"] * 4}
    with pytest.raises(InputError, match=r"data/train\.jsonl: holds other rows; name another"):
        finetune("classify", recipe(start, tmp_path / "out", train=other))
    with pytest.raises(SettingsError, match="output: missing"):
        finetune("classify", {"model": str(start), "data": {"train": columns}})


def test_a_run_is_logged_with_its_settings_and_test_scores(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Recording:
        id = "one"

        def __init__(self, run: trackers.TrackedRun, _known_id: str | None) -> None:
            told.append(run)

        def log(self, values: Mapping[str, float], step: int) -> None:
            told.append((step, values))

        def finish(self, *, failed: bool) -> None:
            told.append(failed)

    monkeypatch.setattr(trackers, "is_installed", lambda _: True)
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Recording)
    rows_of = COLUMNS["classify"]
    given = {**recipe(start, tmp_path / "out", train=rows_of, test=rows_of), "log": {}}
    finetune("classify", given, to=["mlflow"], project="films")
    run, *logged, failed = told
    assert (run.project, run.config["run"]["epochs"], failed) == ("films", 1, False)
    assert run.name.startswith("out-lr-default")
    assert any("step/loss" in values for _, values in logged)
    assert "test/accuracy" in logged[-1][1]
    finetune("classify", given, to=["mlflow"], project="films")
    assert len(told) == len([run, *logged, failed])
