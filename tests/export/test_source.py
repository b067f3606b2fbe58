"""What a folder is exported as, also of folders that sentence-transformers wrote."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.export.conftest import Folder

from modernbert.errors import ConfigError, ModelFolderError
from modernbert.export.source import copy_settings, open_source

pytestmark = pytest.mark.filterwarnings("default:::sentence_transformers")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("embedder", "ModernBertModel"),
        ("masked-lm", "ModernBertForMaskedLM"),
        ("classifier", "ModernBertForSequenceClassification"),
        ("tagger", "ModernBertForTokenClassification"),
        ("reader", "ModernBertForQuestionAnswering"),
    ],
)
def test_a_folder_says_what_it_is(model_folder: Folder, kind: str, name: str) -> None:
    assert open_source(model_folder(kind)).kind == name


def test_a_cross_encoder(model_folder: Folder, tmp_path: Path) -> None:
    """Version 6 gives it a modules.json with one step."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(model_folder("reranker")), device="cpu").save_pretrained(str(tmp_path / "ce"))
    assert (tmp_path / "ce" / "modules.json").is_file()
    assert open_source(tmp_path / "ce").kind == "ModernBertForSequenceClassification"


def test_steps_after_the_encoder_come_along(model_folder: Folder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    steps = [Transformer(str(model_folder("masked-lm"))), Pooling(64, "cls"), Dense(64, 8)]
    SentenceTransformer(modules=steps, device="cpu").save(
        str(tmp_path / "st"), create_model_card=False
    )
    source = open_source(tmp_path / "st")
    assert source.kind == "ModernBertModel"
    copied = tmp_path / "copied"
    copied.mkdir()
    copy_settings(source, copied)
    assert load_file(copied / "2_Dense/model.safetensors")["linear.weight"].shape == (8, 64)
    assert not (copied / "model.safetensors").exists()
    # transformers 5 writes no special_tokens_map.json, which some engines ask for.
    written = json.loads((copied / "special_tokens_map.json").read_text())
    assert written["mask_token"]["content"] == "[MASK]"
    assert not (tmp_path / "st" / "special_tokens_map.json").exists()


def test_pooling_of_an_embedder(model_folder: Folder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    steps = [Transformer(str(model_folder("masked-lm"))), Pooling(64, "cls")]
    SentenceTransformer(modules=steps, device="cpu").save(
        str(tmp_path / "st"), create_model_card=False
    )
    assert open_source(tmp_path / "st").pooling == "cls"


def test_others(model_folder: Folder, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((model_folder("masked-lm") / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for change, error in (
        ({"architectures": ["ModernBertForMultipleChoice"]}, ModelFolderError),
        ({"model_type": "bert"}, ConfigError),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(error):
            open_source(tmp_path)
