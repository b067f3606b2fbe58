"""`modernbert.load`: each folder becomes the object that is for it."""

from pathlib import Path

import numpy as np
import pytest

import modernbert
from modernbert.errors import FolderWarning, InputError, ModelFolderError
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
    with pytest.raises(InputError, match="holds nothing that is known here"):
        modernbert.load(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(ModelFolderError, match="holds a recipe, expected a model"):
        modernbert.load(tmp_path / "recipe.toml")
    initialize(MaskedLanguageModel(config), seed=0).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="fine-tune it with `modernbert finetune classify`"):
        modernbert.Classifier.from_pretrained(tmp_path / "model")
