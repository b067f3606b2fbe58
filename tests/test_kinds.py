"""What a folder is: every kind is told, the wrong one is answered with the right one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from modernbert.errors import FolderWarning, InputError, ModelFolderError
from modernbert.kinds import (
    MODEL_KINDS,
    Kind,
    find_kind,
    kind_of,
    model_folder,
    read_modules,
    tokenizer_folder,
)

STEPS = "sentence_transformers.models."


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def modules(*kinds: str) -> list[dict[str, str]]:
    return [{"type": STEPS + kind, "path": kind if at else ""} for at, kind in enumerate(kinds)]


CLASSIFIER = {"architectures": ["ModernBertForSequenceClassification"], "id2label": {"0": "x"}}

FOLDERS: list[tuple[Kind, dict[str, Any]]] = [
    ("encoder", {"config.json": {}}),
    ("masked_lm", {"config.json": {"architectures": ["ModernBertForMaskedLM"]}}),
    ("classifier", {"config.json": CLASSIFIER}),
    ("reranker", {"config.json": {**CLASSIFIER, "sentence_transformers": {}}}),
    (
        "reranker",
        {
            "config.json": CLASSIFIER,
            "modules.json": modules("Transformer"),
            "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
        },
    ),
    (
        "reranker",
        {
            "config.json": {},
            "modules.json": modules("Transformer", "Pooling", "Dense"),
            "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
        },
    ),
    ("tagger", {"config.json": {"architectures": ["ModernBertForTokenClassification"]}}),
    ("answerer", {"config.json": {"architectures": ["ModernBertForQuestionAnswering"]}}),
    ("embedder", {"modules.json": modules("Transformer", "Pooling"), "config.json": {}}),
    ("sparse", {"modules.json": modules("Transformer", "SpladePooling"), "config.json": {}}),
    (
        "multi_vector",
        {
            "modules.json": modules("Transformer", "Dense"),
            "config_sentence_transformers.json": {"model_type": "ColBERT"},
        },
    ),
    ("tokenizer", {"tokenizer.json": {}}),
    ("shards", {"manifest.json": {"format": "modernbert token shards"}}),
    ("index", {"manifest.json": {"format": "modernbert search index 1"}}),
    ("index", {"manifest.json": {"format": "modernbert multi-vector index 1"}}),
    ("checkpoint", {"manifest.json": {}, "progress.json": {}}),
    ("run", {"metrics.jsonl": ""}),
    ("run", {"model/config.json": {}}),
    ("evaluation", {"results.json": {}}),
]


@pytest.mark.parametrize(("kind", "files"), FOLDERS)
def test_every_kind(tmp_path: Path, kind: Kind, files: dict[str, Any]) -> None:
    for name, content in files.items():
        write(tmp_path, name, content)
    assert kind_of(tmp_path) == kind


def test_files_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    (tmp_path / "vectors.npy").touch()
    assert kind_of(tmp_path / "recipe.toml") == "recipe"
    assert kind_of(tmp_path / "vectors.npy") == "vectors"
    assert find_kind(tmp_path) is None
    with pytest.raises(InputError, match="no such file or folder"):
        kind_of(tmp_path / "nowhere")


def test_the_folder_of_a_run_stands_for_its_model(tmp_path: Path) -> None:
    write(tmp_path, "model/config.json", {"architectures": ["ModernBertForMaskedLM"]})
    write(tmp_path, "model/tokenizer.json", {})
    with pytest.warns(FolderWarning, match="is the folder of a run; the model in it, .*model, is"):
        assert model_folder(tmp_path, ("masked_lm",)) == tmp_path / "model"
    assert tokenizer_folder(tmp_path) == tmp_path / "model"


@pytest.mark.parametrize(
    ("wanted", "config", "said"),
    [
        (
            ("classifier",),
            {"architectures": ["ModernBertForMaskedLM"]},
            "holds a masked language model, expected a classifier of texts; fine-tune it with "
            "`modernbert finetune classify`",
        ),
        (("tagger",), {}, "encoder without a head, .* `modernbert finetune tag`"),
        (("masked_lm",), CLASSIFIER, "a classifier of texts, .*; `modernbert classify` is for it"),
    ],
)
def test_the_wrong_model(tmp_path: Path, wanted: Any, config: Any, said: str) -> None:
    write(tmp_path, "config.json", config)
    with pytest.raises(ModelFolderError, match=said):
        model_folder(tmp_path, wanted)


def test_something_else_than_a_model(tmp_path: Path) -> None:
    write(tmp_path, "manifest.json", {"format": "modernbert search index 1"})
    with pytest.raises(ModelFolderError, match="a search index, expected a model; `modernbert sea"):
        model_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": 1}, "expected a list of modules"),
        ([1], "expected a list of modules"),
        ([{"path": ""}], "key 'type' is missing"),
        ([{"type": STEPS + "Pooling", "path": 3}], "path: got 3, expected a text"),
        ([{"type": STEPS + "Pooling", "path": "../../.."}], "leads out of the folder"),
        ([{"type": STEPS + "SpladePooling", "path": "/etc"}], "leads out of the folder"),
        ([{"type": "custom.Transformer", "path": ""}], "custom code of the model"),
        ([{"type": STEPS + "Pooling", "path": "", "typo": 1}], "unknown key 'typo'"),
    ],
)
def test_steps_that_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    write(tmp_path, "modules.json", content)
    with pytest.raises(ModelFolderError, match=said):
        read_modules(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "modules.json", "manifest.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelFolderError, match="is not a regular file"):
        kind_of(tmp_path)


def test_an_unknown_architecture(tmp_path: Path) -> None:
    for named in ("ModernBertForMultipleChoice", "ModernBertDecoderForCausalLM"):
        write(tmp_path, "config.json", {"architectures": [named]})
        with pytest.raises(ModelFolderError, match=f"holds a {named}; expected one of"):
            kind_of(tmp_path)
    write(tmp_path, "config.json", {"architectures": [3]})
    with pytest.raises(ModelFolderError, match="expected a list of names"):
        kind_of(tmp_path)
    assert len(set(MODEL_KINDS)) == 9
