"""ModernBERT's tokenizer from OLMo's file, against the published one."""

import json
from pathlib import Path

import pytest
import tokenizers

from modernbert.errors import TokenizerError
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import PUBLISHED_FINGERPRINT, derive


@pytest.fixture(scope="module")
def olmo_file(shared_data: Path) -> Path:
    return shared_data / "tokenizer" / "olmo-dolma-v1_5.json"


@pytest.fixture(scope="module")
def derived(olmo_file: Path) -> Tokenizer:
    return derive(olmo_file)


def test_saved_json_equals_the_published(
    derived: Tokenizer, published_file: Path, tmp_path: Path
) -> None:
    derived.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved == json.loads(published_file.read_text(encoding="utf-8"))


def test_fingerprint_is_that_of_the_published(published: Tokenizer) -> None:
    assert published.fingerprint == PUBLISHED_FINGERPRINT


def test_ids_of_the_special_tokens(derived: Tokenizer) -> None:
    assert derived.special_token_ids == (50280, 50281, 50282, 50283, 50284)
    assert derived.vocab_size == 50_368
    assert derived.id_to_token(50_367) == "[unused82]"


def test_the_example_of_the_paper_s_model_card(derived: Tokenizer) -> None:
    ids = derived.encode("The capital of France is [MASK].")
    assert ids == [50281, 510, 5347, 273, 6181, 310, 50284, 15, 50282]


def test_ids_on_every_corpus_equal_the_oracle_s(
    derived: Tokenizer, published_file: Path, real_texts: list[str]
) -> None:
    oracle = tokenizers.Tokenizer.from_file(str(published_file))
    expected = [encoding.ids for encoding in oracle.encode_batch(real_texts)]
    assert derived.encode_batch(real_texts) == expected
    assert sum(map(len, expected)) > 300_000


def test_a_file_saved_by_another_version_is_the_same(olmo_file: Path, tmp_path: Path) -> None:
    resaved = tmp_path / "olmo.json"
    tokenizers.Tokenizer.from_file(str(olmo_file)).save(str(resaved))
    assert derive(resaved).fingerprint == PUBLISHED_FINGERPRINT


def test_refuses_modernbert_s_own_file(published_file: Path) -> None:
    with pytest.raises(TokenizerError, match="50,368 entries and 50,009 merges, expected OLMo's"):
        derive(published_file)


def test_refuses_a_file_of_the_right_size_with_other_content(
    olmo_file: Path, tmp_path: Path
) -> None:
    definition = json.loads(olmo_file.read_text(encoding="utf-8"))
    merges = definition["model"]["merges"]
    merges[7], merges[8] = merges[8], merges[7]
    changed = tmp_path / "olmo.json"
    changed.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match="different content"):
        derive(changed)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such file"):
        derive(tmp_path / "olmo.json")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model": {"vocab": {"a": 0}}}',
        '{"added_tokens": [], "model": {"vocab": [["a", 0.5]]}}',
    ],
)
def test_refuses_what_is_no_bpe(tmp_path: Path, content: str) -> None:
    path = tmp_path / "olmo.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=str(path)):
        derive(path)
