"""Names that no file can have, for every parameter of every verb that names one: one line."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_app import VERBS, command_of
from tests.reliability.samples import write_corpus, write_samples
from tests.reliability.verbs import write_labels, write_pairs

NAMES = {"a user that is not there": "~nosuchuser/x", "long": "n" * 5000, "NUL": "a\0b"}
_TRAINS = ("demo", "finetune")
_NAMED_BY_TEXT = ("train", "dev", "test", "teacher", "corpus", "model", "suite", "rows", "models")
_MODELS = {
    ("classify",): "classifier",
    ("score",): "classifier",
    ("tag",): "tagger",
    ("answer",): "answerer",
    ("rerank",): "reranker",
    ("fill-mask",): "masked_lm",
    ("export", "gguf"): "embedder",
    ("finetune", "classify"): "masked_lm",
    ("finetune", "regress"): "masked_lm",
    ("finetune", "tag"): "masked_lm",
    ("finetune", "answer"): "masked_lm",
}
_GIVEN = {
    **dict.fromkeys(("corpus", "input_file", "sample", "context"), "texts.jsonl"),
    **dict.fromkeys(("train", "dev", "test"), "pairs.jsonl"),
    "rows": "pairs.jsonl",
    "tokenizer": "tokenizer",
    "index": "words.index",
    "recipe": "recipe.toml",
    "folder": "embedder",
    "hub_id": "owner/name",
    "query": "a",
    "token": "[A]",
    "name": "start",
    "suite": "missing.toml",
    "models": "missing",
}


def _files() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every verb with each of its parameters that names a file or a folder."""
    for verb in VERBS:
        for parameter in getattr(command_of(verb), "params", []):
            kind = str(getattr(parameter, "type_descriptor", ""))
            if "Path" in kind or parameter.name in _NAMED_BY_TEXT:
                yield verb, parameter.name


FILES = [each for each in _files() if not hasattr(command_of(each[0]), "commands")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("samples")
    write_samples(home)
    write_corpus(home / "texts.jsonl")
    write_pairs(home)
    write_labels(home)
    return home


def _arguments(verb: tuple[str, ...], bad: str, name: str) -> Iterator[str]:
    """The arguments of a verb, all good but one; what is not required is left out."""
    given = {**_GIVEN, "model": _MODELS.get(verb, "embedder")}
    if verb[0] == "finetune" and given["model"] == "masked_lm":
        given |= dict.fromkeys(("train", "dev", "test"), "rows.jsonl")
    needed = ("model", "train", "dev") if verb[0] == "finetune" else ()
    for parameter in command_of(verb).params:
        value = name if parameter.name == bad else given.get(parameter.name, "new")
        if parameter.param_type_name == "option":
            if parameter.name == bad or parameter.required or parameter.name in needed:
                yield from (parameter.opts[0], value)
        elif parameter.required or parameter.name == bad:
            yield value


@pytest.mark.parametrize(
    ("verb", "bad"), FILES, ids=lambda each: " ".join(each) if isinstance(each, tuple) else each
)
def test_a_name_that_cannot_be_is_one_line(
    run: Callable[..., Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: tuple[str, ...],
    bad: str,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for kind, name in NAMES.items():
        if kind == "a user that is not there" and bad == "output" and verb[0] in _TRAINS:
            continue  # a fine name of a folder, in which it would train
        answer = run(*verb, *_arguments(verb, bad, name))
        said = f"{kind}: {answer}"
        assert answer.exit_code in ((2,) if kind == "NUL" else (0, 2)), said
        assert "Traceback" not in answer.stderr, said
        if answer.exit_code == 2:
            ours, typers = answer.stderr.count("error: "), answer.stderr.count(" Error ")
            assert (ours, typers) in ((1, 0), (0, 1)), said
        for made in ("new", "~nosuchuser"):
            shutil.rmtree(made, ignore_errors=True)
