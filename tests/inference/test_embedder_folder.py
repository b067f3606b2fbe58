"""Folders of sentence-transformers: which are read, which are refused, and what is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.inference.embedder_folder import (
    EmbedderSettings,
    read_embedder_settings,
    write_embedder,
)


def write(folder: Path, **files: Any) -> Path:
    """Files by name, with `__` for the folder; `modules` as the last parts of the types."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def modules(*kinds: str, paths: tuple[str, ...] = ("", "1_Pooling", "2_Normalize")) -> Any:
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]


USUAL = modules("Transformer", "Pooling", "Normalize")


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"], "pooling_mode_cls_token": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"word_embedding_dimension": 8}, "mean"),
    ],
)
def test_poolings_of_all_versions(tmp_path: Path, pooling: Any, expected: str) -> None:
    write(tmp_path, modules=USUAL, **{"1_Pooling__config": pooling})
    folder, settings = read_embedder_settings(tmp_path)
    assert folder == tmp_path
    assert settings == EmbedderSettings(pooling=expected, normalize=True)  # type: ignore[arg-type]


def test_all_that_a_folder_says(tmp_path: Path) -> None:
    said = {
        "prompts": {"query": "q: ", "document": None},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    }
    write(
        tmp_path,
        modules=modules("Transformer", "Pooling", paths=("0_Transformer", "pooled")),
        config_sentence_transformers=said,
        **{
            "0_Transformer__sentence_bert_config": {"max_seq_length": 128},
            "pooled__config": {"pooling_mode": "mean", "include_prompt": False},
        },
    )
    folder, settings = read_embedder_settings(tmp_path)
    assert folder == tmp_path / "0_Transformer"
    assert settings == EmbedderSettings(
        pooling="mean",
        max_seqlen=128,
        prompts={"query": "q: ", "document": ""},
        default_prompt_name="query",
        pool_prompt=False,
        similarity="dot",
    )


def test_a_plain_folder_pools_as_its_config_says(tmp_path: Path) -> None:
    assert read_embedder_settings(tmp_path)[1] == EmbedderSettings(pooling="mean")
    write(tmp_path, config={"classifier_pooling": "cls"})
    assert read_embedder_settings(tmp_path)[1] == EmbedderSettings(pooling="cls")


def test_written_and_read_again(tmp_path: Path) -> None:
    for number, settings in enumerate(
        (
            EmbedderSettings(),
            EmbedderSettings(
                pooling="cls",
                normalize=True,
                max_seqlen=99,
                prompts={"query": "é: "},
                default_prompt_name="query",
                pool_prompt=False,
                similarity="manhattan",
            ),
        )
    ):
        write_embedder(tmp_path / str(number), settings, hidden_size=64)
        assert read_embedder_settings(tmp_path / str(number))[1] == settings


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": "{"}, r"modules\.json: not a readable JSON file"),
        ({"modules": {"a": 1}}, "expected a list of modules"),
        (
            {"modules": modules("Transformer", "Pooling", "LSTM")},
            "the steps Transformer, Pooling, LSTM are not supported; Transformer, Pooling and",
        ),
        ({"modules": USUAL}, "1_Pooling/config.json: missing"),
        (
            {"modules": modules("Transformer", "Pooling", paths=("", "../elsewhere"))},
            "the path '../elsewhere' leads out of the folder",
        ),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files: Any, message: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(ModelFolderError, match=message):
        read_embedder_settings(tmp_path)


def test_a_default_prompt_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"^default_prompt_name: 'x' is not one of the prompts"):
        EmbedderSettings(default_prompt_name="x")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFolderError, match="cannot be written"):
        write_embedder(tmp_path / "file" / "model", EmbedderSettings(), 64)
