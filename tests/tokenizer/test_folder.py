"""Folders: what is written, what is read, what is refused, and what transformers makes of it."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modernbert.errors import TokenizerError
from modernbert.tokenizer.folder import read_roles
from modernbert.tokenizer.tokenizer import Tokenizer

from .conftest import SAMPLES


@pytest.fixture(scope="module")
def folder(small: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small tokenizer; tests read it only."""
    path = tmp_path_factory.mktemp("saved")
    small.save_pretrained(path, model_max_length=16)
    return path


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Any:
    """The folder, loaded by transformers."""
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def test_saved_and_loaded_is_equal(small: Tokenizer, folder: Path) -> None:
    loaded = Tokenizer.from_pretrained(str(folder))
    assert loaded.fingerprint == small.fingerprint
    assert loaded.model_max_length == 16
    assert sorted(path.name for path in folder.iterdir()) == [
        "hashes.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip


def test_the_longest_sequence_is_8192_unless_told(small: Tokenizer, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "new" / "folder")
    config = json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text("utf-8"))
    assert config["model_max_length"] == 8192
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]


def test_transformers_loads_the_same(small: Tokenizer, foreign: Any) -> None:
    assert len(foreign) == small.vocab_size
    assert foreign.model_max_length == 16
    assert sorted(foreign.all_special_ids) == sorted(small.special_token_ids)
    assert (foreign.cls_token_id, foreign.sep_token_id) == (small.cls_token_id, small.sep_token_id)
    assert (foreign.pad_token_id, foreign.unk_token_id) == (small.pad_token_id, small.unk_token_id)
    assert foreign.mask_token_id == small.mask_token_id


@pytest.mark.parametrize("text", SAMPLES)
def test_transformers_gives_the_same_ids(small: Tokenizer, foreign: Any, text: str) -> None:
    assert foreign(text).input_ids == small.encode(text)
    # (transformers takes an empty second text for none.)
    assert foreign(text, SAMPLES[2]).input_ids == small.encode(text, SAMPLES[2])
    assert foreign(text, add_special_tokens=False).input_ids == small.encode(
        text, special_tokens=False
    )
    assert foreign.decode(small.encode(text)) == small.decode(small.encode(text))


@pytest.mark.parametrize("max_seqlen", range(4, 26, 3))
def test_truncation_is_that_of_transformers(
    small: Tokenizer, foreign: Any, max_seqlen: int
) -> None:
    options = {"truncation": True, "max_length": max_seqlen}
    for lengths in itertools.product([1, 2, 5, 9, 10, 20], repeat=2):
        first, second = (" x" * length for length in lengths)
        assert foreign(first, **options).input_ids == small.encode(first, max_seqlen=max_seqlen)
        pair = foreign(first, second, **options).input_ids
        assert pair == small.encode(first, second, max_seqlen=max_seqlen)


def test_padding_of_transformers_is_our_pad(small: Tokenizer, foreign: Any) -> None:
    padded = foreign(["a", "a b c d"], padding=True)
    rows = small.encode_batch(["a", "a b c d"])
    missing = len(rows[1]) - len(rows[0])
    assert padded.input_ids == [rows[0] + [small.pad_token_id] * missing, rows[1]]
    assert padded.attention_mask[0] == [1] * len(rows[0]) + [0] * missing


def test_what_transformers_saves_is_the_same(
    small: Tokenizer, foreign: Any, tmp_path: Path
) -> None:
    foreign.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == small.fingerprint


def test_truncation_in_the_file_is_dropped(small: Tokenizer, folder: Path, tmp_path: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(definition), encoding="utf-8")
    assert Tokenizer.from_file(path).encode(SAMPLES[2]) == small.encode(SAMPLES[2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable JSON file"),
        (b"\xff\xfe\x00", "not a readable JSON file"),
        (b'{"model": ', "not a readable JSON file"),
        (b"[" * 100_000, "not a readable JSON file"),
        (b"{}", "is not a tokenizer"),
        (b'{"added_tokens": [], "model": {"vocab": {}}}', "is not a tokenizer"),
        (b'{"added_tokens": [1], "model": {"vocab": {"a": 0}}}', "is not a tokenizer"),
        (b'{"added_tokens": [], "model": {"vocab": {"a": 0}}}', "not a usable tokenizer"),
        (b'{"added_tokens": [], "model": {"vocab": {"\\ud800": 0}}}', "not a usable tokenizer"),
    ],
)
def test_refuses_a_broken_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=f"tokenizer.json: {message}") as error:
        Tokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def without(folder: Path, token: str) -> str:
    """A tokenizer.json with a token's name replaced wherever it stands."""
    return (folder / "tokenizer.json").read_text("utf-8").replace(f'"{token}"', '"[OTHER]"')


def test_refuses_a_file_without_a_mask(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(without(folder, "[MASK]"), encoding="utf-8")
    message = r"tokenizer.json: no token has the role mask_token; set mask_token in "
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
def test_other_roles_follow_from_the_rest(
    folder: Path, tmp_path: Path, small: Tokenizer, token: str
) -> None:
    """The template says what stands around a text; padding and unknown tokens have stand-ins."""
    (tmp_path / "tokenizer.json").write_text(without(folder, token), encoding="utf-8")
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.encode("some text") == small.encode("some text")
    assert (loaded.cls_token_id, loaded.sep_token_id) == (small.cls_token_id, small.sep_token_id)
    if token == "[PAD]":
        assert loaded.pad_token_id == small.sep_token_id
    if token == "[UNK]":
        assert loaded.unk_token_id == small.pad_token_id


def broken_definitions(definition: dict) -> Iterator[dict]:
    """The definition with each of its parts, and each of its model's, gone or of a wrong type."""
    for value in (None, 7, "x", [], {}, [None], {"type": "none"}):
        for key in definition:
            yield {**definition, key: value}
        for key in definition["model"]:
            yield {**definition, "model": {**definition["model"], key: value}}
        for token in ({}, value):
            yield {**definition, "added_tokens": [*definition["added_tokens"], token]}


def test_whatever_is_wrong_is_a_tokenizer_error(folder: Path, tmp_path: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    path = tmp_path / "tokenizer.json"
    refused = 0
    for broken in broken_definitions(definition):
        path.write_text(json.dumps(broken), encoding="utf-8")
        try:
            Tokenizer.from_file(path).encode("some text")
        except TokenizerError:
            refused += 1
    assert refused > 60


def test_a_template_that_names_no_token_is_refused(folder: Path, tmp_path: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition["post_processor"]["special_tokens"].pop("[CLS]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match="not a usable tokenizer definition"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_bpe_with_a_prefix_is_refused(folder: Path, tmp_path: Path) -> None:
    """The library would cut its merges by bytes, and abort the process."""
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition["model"]["continuing_subword_prefix"] = "##"
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match="continuing_subword_prefix is not supported"):
        Tokenizer.from_pretrained(tmp_path)


def test_refuses_a_broken_config_beside_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json: not a readable JSON file"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("1000000000000000019884624838656", 10**30),
        ("1e30", 10**30),
        ("null", 8192),
        ('"x"', 8192),
        ("-1", 8192),
        ("true", 8192),
        ("512", 512),
        ("32768", 32768),
    ],
)
def test_the_longest_sequence_of_the_config(
    folder: Path, tmp_path: Path, length: str, expected: int
) -> None:
    """1e30 is what transformers writes for a tokenizer without a limit."""
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        f'{{"model_max_length": {length}}}', encoding="utf-8"
    )
    assert Tokenizer.from_pretrained(tmp_path).model_max_length == expected


@pytest.mark.parametrize(
    "name", ["./absent", "/absent/model", "a/b/c", "~/absent", "absent/", ".."]
)
def test_a_path_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # beside nothing that could be meant
    with pytest.raises(TokenizerError, match=r"no such (folder|file)"):
        Tokenizer.from_pretrained(name)
    with pytest.raises(TokenizerError, match=r"no such folder$"):
        Tokenizer.from_pretrained(tmp_path / "absent")


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="is a file; expected a folder"):
        Tokenizer.from_pretrained(folder / "tokenizer.json")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no such file; expected a tokenizer.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_hub_id_fetches_the_tokenizer_s_files_alone(
    small: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def snapshot_download(hub_id: str, *, revision: None, allow_patterns: list[str]) -> str:
        assert revision is None
        calls.append((hub_id, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert Tokenizer.from_pretrained("owner/model").fingerprint == small.fingerprint
    files = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    assert calls == [("owner/model", files)]


def test_a_hub_id_that_fails_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise ConnectionError("no network\nand a second line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    expected = "^owner/model: no such folder, and the hub could not provide it: no network$"
    with pytest.raises(TokenizerError, match=expected):
        Tokenizer.from_pretrained("owner/model")


def test_a_missing_folder_beside_others_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TokenizerError, match=r"^runs/demo: no such folder$"):
        Tokenizer.from_pretrained("runs/demo")


def test_a_save_that_fails_leaves_the_old_file(
    small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(TokenizerError, match=r"cannot be written: .*No space left"):
        small.save_pretrained(tmp_path, model_max_length=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_refuses_to_save_into_a_file(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(TokenizerError, match="cannot be written"):
        small.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize(
    ("key", "value"), [("truncation_side", "left"), ("split_special_tokens", True)]
)
def test_settings_that_are_not_supported(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(TokenizerError, match=f"{key}: {value!r} is not supported"):
        read_roles(tmp_path)


def test_inputs_without_the_mask_are_refused(tmp_path: Path) -> None:
    """Padding would then change what other libraries compute."""
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"model_input_names": ["input_ids", "attention_mask"]}))
    assert read_roles(tmp_path) == {}
    path.write_text(json.dumps({"model_input_names": ["input_ids"]}))
    with pytest.raises(TokenizerError, match=r"model_input_names: .* lacks 'attention_mask'"):
        read_roles(tmp_path)


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "y" * 1000}),
        ("normalizer", {"type": "Prepend", "prepend": "y" * 1000}),
        (
            "normalizer",
            {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 20}]
                * 3,
            },
        ),
        ("decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "y" * 1000}),
    ],
)
def test_steps_that_make_texts_long_are_refused(
    folder: Path, tmp_path: Path, part: str, step: dict[str, Any]
) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition[part] = step
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"its {part} makes a text [0-9,]+ times as long"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_token_of_many_letters_is_refused(folder: Path, tmp_path: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    definition["model"]["vocab"]["y" * 5000] = len(definition["model"]["vocab"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match="has a token of 5,000 letters"):
        Tokenizer.from_pretrained(tmp_path)
