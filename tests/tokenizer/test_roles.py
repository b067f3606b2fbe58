"""Tokenizers of other ModernBERTs: special tokens by their role, equal to transformers' ids.

Each is a small twin, trained here, of the layout of a published family.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from modernbert.errors import TokenizerError
from modernbert.tokenizer.definition import Template
from modernbert.tokenizer.folder import named_roles
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = [
    "The capital of France is Paris.",
    "  two spaces\n and a tab\t",
    "Ben-Elissar's café, naïve 東京 שלום 😀",
    "",
    " ",
]

Backend = tokenizers.Tokenizer


def framed(backend: Backend, single: str, pair: str, names: list[str]) -> None:
    ids = [(name, backend.token_to_id(name)) for name in names]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=ids
    )


def gemma_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """mmBERT: BPE with bytes to fall back on, blanks as a letter of their own, `<bos>` `<eos>`."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*names, *all_bytes], show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    framed(backend, "<bos> $A <eos>", "<bos> $A <eos> $B <eos>", ["<bos>", "<eos>"])
    roles = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "cls_token": "<bos>",
        "sep_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return backend, roles


def unigram(texts: list[str], names: list[str], first: str, last: str) -> Backend:
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    framed(backend, f"{first} $A {last}", f"{first} $A {last} $B {last}", [first, last])
    return backend


def japanese_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """modernbert-ja and ruri-v3: Unigram, framed by `<s>` although there is a `<cls>` too."""
    names = ["<unk>", "<s>", "</s>", "<pad>", "<sep>", "<mask>", "<cls>"]
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<cls>",
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return unigram(texts, names, "<s>", "</s>"), roles


def hebrew_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """HebrewModernBERT: Unigram with BERT's names."""
    names = ["<unk>", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    roles = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "<unk>",
        "mask_token": "[MASK]",
    }
    return unigram(texts, names, "[CLS]", "[SEP]"), roles


def byte_level(texts: list[str], names: list[str]) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def roberta_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """`<s> A </s></s> B </s>`, and a mask that takes the space before it."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = byte_level(texts, names)
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
    )
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return backend, roles


def llm_jp_like(texts: list[str]) -> tuple[Backend, dict[str, str]]:
    """Names that nobody could guess, no unknown token, and no padding of its own."""
    names = ["<CLS|LLM-jp>", "<SEP|LLM-jp>", "<MASK|LLM-jp>"]
    backend = byte_level(texts, names)
    cls, sep, mask = names
    framed(backend, f"{cls} $A {sep}", f"{cls} $A {sep} $B {sep}", [cls, sep])
    return backend, {"cls_token": cls, "sep_token": sep, "mask_token": mask}


TWINS: dict[str, Callable[[list[str]], tuple[Backend, dict[str, str]]]] = {
    "gemma": gemma_like,
    "japanese": japanese_like,
    "hebrew": hebrew_like,
    "roberta": roberta_like,
    "llm-jp": llm_jp_like,
}


@pytest.fixture(params=TWINS, scope="module")
def twin(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    python_sources: list[str],
) -> Path:
    """A folder as the family's is published."""
    texts = [*python_sources, *TEXTS] * 2
    backend, roles = TWINS[request.param](texts)
    folder = tmp_path_factory.mktemp(request.param)
    backend.save(str(folder / "tokenizer.json"))
    write_config(folder, {**roles, "model_max_length": 10**30})
    return folder


def write_config(folder: Path, content: dict[str, Any]) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **content}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture
def foreign(twin: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(twin)


def test_ids_are_those_of_transformers(twin: Path, foreign: Any) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    for text in TEXTS:
        masked = f"{text} {tokenizer.mask_token} {text}"
        for each in (text, masked):
            assert tokenizer.encode(each) == foreign(each).input_ids
            pair = tokenizer.encode(each, TEXTS[0])
            assert pair == foreign(each, TEXTS[0]).input_ids
            bare = foreign(each, add_special_tokens=False).input_ids
            assert tokenizer.encode(each, special_tokens=False) == bare


def test_roles_are_those_of_transformers(twin: Path, foreign: Any) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    assert tokenizer.mask_token_id == foreign.mask_token_id
    first, *_, last = foreign("some text").input_ids
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (first, last)
    if foreign.pad_token_id is not None:
        assert tokenizer.pad_token_id == foreign.pad_token_id
    if foreign.unk_token_id is not None:
        assert tokenizer.unk_token_id == foreign.unk_token_id
    assert tokenizer.mask_token_id in tokenizer.encode(f"a {tokenizer.mask_token} b")


def test_truncation_keeps_the_frame(twin: Path, foreign: Any) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    text = "one two three four five six"
    expected = foreign(text, truncation=True, max_length=5).input_ids
    assert tokenizer.encode(text, max_seqlen=5) == expected
    expected = foreign(text, text, truncation=True, max_length=9).input_ids
    assert tokenizer.encode(text, text, max_seqlen=9) == expected


def test_saved_and_loaded_again(twin: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    for copy in (again, pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.special_token_ids == tokenizer.special_token_ids
        assert copy.roles == tokenizer.roles
    transformers = pytest.importorskip("transformers")
    foreign = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert foreign.mask_token_id == tokenizer.mask_token_id
    assert foreign(TEXTS[0]).input_ids == tokenizer.encode(TEXTS[0])


def test_words_have_the_tokens_of_running_text(twin: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    encoding = tokenizer.encode_words(["Paris", "is", "old"])
    bare = tokenizer.template.bare(encoding.token_ids)
    assert tokenizer.decode(bare).strip() == "Paris is old"
    assert {word for word in encoding.word_ids if word is not None} == {0, 1, 2}
    for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        assert word is None or 0 <= start <= end <= len(["Paris", "is", "old"][word])


def test_special_tokens_in_a_text_are_text_where_asked(twin: Path, foreign: Any) -> None:
    tokenizer = Tokenizer.from_pretrained(twin)
    text = f"a {tokenizer.mask_token} b"
    ids = tokenizer.encode(text, split_special_tokens=True)
    # A Unigram model has its special tokens among its pieces, and finds them there.
    is_unigram = tokenizer.definition["model"]["type"] == "Unigram"
    assert is_unigram or tokenizer.mask_token_id not in ids
    assert ids == foreign(text, split_special_tokens=True).input_ids
    assert tokenizer.encode_batch([text], split_special_tokens=True) == [ids]


def test_a_role_of_the_older_file_counts_less() -> None:
    older, newer = {"mask_token": {"content": "<m>"}, "pad_token": "<p>"}, {"mask_token": "<mask>"}
    assert named_roles([older, newer]) == {"mask_token": "<mask>", "pad_token": "<p>"}
    with pytest.raises(TokenizerError, match="mask_token: got 5, expected a token as a string"):
        named_roles([{"mask_token": 5}])


def test_bare_undoes_frame(twin: Path) -> None:
    template: Template = Tokenizer.from_pretrained(twin).template
    assert template.bare(template.frame([70, 71])) == [70, 71]
    assert template.bare([70, 71]) == [70, 71]
    assert len(template.frame([70], [71])) == 2 + template.num_special(2)
    assert len(template.frame([70])) == 1 + template.num_special(1)


def test_a_file_that_is_no_file_is_refused(twin: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((twin / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").mkdir()
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: cannot be read"):
        Tokenizer.from_pretrained(tmp_path)
