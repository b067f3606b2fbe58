"""`modernbert.load`: each folder becomes the object that is for it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import modernbert
from modernbert.errors import FolderWarning, InputError, ModelFolderError, ResultError
from modernbert.inference.index_folder import build_index
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings, MaskedLanguageModel, SpanClassifier
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer


def test_models(classifier_folder: Path, tagger_folder: Path) -> None:
    assert isinstance(modernbert.load(classifier_folder), modernbert.Classifier)
    assert isinstance(modernbert.load(str(tagger_folder)), modernbert.Tagger)


def test_a_run_and_its_tokenizer(
    tmp_path: Path, config: EncoderConfig, tokenizer: Tokenizer
) -> None:
    model = initialize(SpanClassifier(config, ClassifierSettings(labels=("start", "end"))), seed=0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.warns(FolderWarning, match="is the folder of a run"):
        loaded = modernbert.load(tmp_path, precision="float32")
    assert isinstance(loaded, modernbert.QuestionAnswerer)


def test_other_folders(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert modernbert.load(tmp_path / "tokenizer").fingerprint == tokenizer.fingerprint
    vectors = np.eye(3, dtype=np.float32)
    build_index(tmp_path / "index", [vectors])
    assert len(modernbert.load(tmp_path / "index")) == 3
    np.save(tmp_path / "vectors.npy", vectors)
    assert modernbert.load(tmp_path / "vectors.npy").shape == (3, 3)


def test_what_cannot_be_loaded(tmp_path: Path, config: EncoderConfig) -> None:
    with pytest.raises(InputError, match="contains nothing that is known here"):
        modernbert.load(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(ModelFolderError, match="holds a recipe, expected a model"):
        modernbert.load(tmp_path / "recipe.toml")
    initialize(MaskedLanguageModel(config), seed=0).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="fine-tune it with `modernbert finetune classify`"):
        modernbert.Classifier.from_pretrained(tmp_path / "model")


def test_results_that_are_not_finite_are_refused(classifier_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(classifier_folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.final_norm.weight"].fill_(torch.inf)
    save_file(weights, broken / "model.safetensors")
    for loaded in (modernbert.Classifier, modernbert.Embedder):
        model = loaded.from_pretrained(broken, precision="float32")
        with pytest.raises(ResultError, match="text 0: the model gave numbers that are not finite"):
            next(iter(model.stream(["a", "b"])))  # type: ignore[attr-defined]
