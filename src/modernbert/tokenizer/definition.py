"""`tokenizer.json` as data: reading it, its canonical form, and ModernBERT's own pipeline.

The format is that of the `tokenizers` library. This one file decides which ids a text gets: it
holds the normalizer, pre-tokenizer, model, added tokens and the template: the special tokens around
texts, which also decide how much text fits into a sequence.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers

from modernbert.errors import InputError, ModernBertError, TokenizerError
from modernbert.json_files import read_json

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
NUM_UNUSED = 83
"""Unused slots after the special tokens, for tokens that you add later (P section 2.2.1)."""

_MAX_GROWTH = 256
_MAX_TOKEN = 1024  # letters; known vocabularies have an eighth of it

NORMALIZER = {"type": "NFC"}
LOWERCASE = {"type": "Lowercase"}
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def read_definition(path: Path) -> dict[str, Any]:
    """Read a tokenizer.json in its canonical form.

    Raises:
        TokenizerError: The file is missing, or is not a tokenizer's JSON.
    """
    definition = read_json(path, TokenizerError)
    if definition is None:
        raise TokenizerError(f"{path}: no such file; expected a tokenizer.json")
    if not _looks_like_a_tokenizer(definition):
        raise TokenizerError(
            f"{path}: is not a tokenizer: expected `added_tokens` and a `model` with a `vocab`"
        )
    if definition["model"].get("merges") and definition["model"].get("continuing_subword_prefix"):
        # Merges that do not fit the prefix make the library split inside a letter and abort.
        raise TokenizerError(f"{path}: a BPE with a continuing_subword_prefix is not supported")
    _refuse_growth(path, definition)
    return canonical(definition)


def _refuse_growth(path: Path, definition: Mapping[str, Any]) -> None:
    """Refuse what makes a long text of a letter or an id: the library ends the process for it."""
    for part in ("normalizer", "decoder"):
        growth, steps = 1, [definition.get(part)]
        while steps:
            step = steps.pop()
            if isinstance(step, list):
                steps += step
            elif isinstance(step, dict):
                steps += [each for each in step.values() if isinstance(each, list)]
                texts = (step.get("content"), step.get("prepend"))
                longer = (max(1, len(each)) for each in texts if isinstance(each, str))
                growth = min(growth * math.prod(longer), 1 << 60)
        if growth > _MAX_GROWTH:
            raise TokenizerError(f"{path}: its {part} makes a text {growth:,} times as long")
    vocab = (
        each[:1] if isinstance(each, list) else [each] for each in definition["model"]["vocab"]
    )
    added = (token["content"] for token in definition["added_tokens"])
    tokens = (token for token in chain(added, *vocab) if isinstance(token, str))
    if (longest := max(map(len, tokens), default=0)) > _MAX_TOKEN:
        raise TokenizerError(
            f"{path}: has a token of {longest:,} letters, of {_MAX_TOKEN:,} at most"
        )


def lowercased(definition: Mapping[str, Any]) -> dict[str, Any] | None:
    """Add lowercasing before the normalizers; return None if they lowercase already."""
    normalizer = definition.get("normalizer")
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Lowercase" or step.get("lowercase") for step in steps):
        return None
    return {**definition, "normalizer": {"type": "Sequence", "normalizers": [LOWERCASE, *steps]}}


def canonical(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same tokenizer in one form, however it was saved.

    Truncation and padding are dropped, as they belong to a call and not to a tokenizer. Merges
    become `"a b"` strings, which every reader understands, unless a token contains a space.
    """
    model = dict(definition["model"])
    if isinstance(merges := model.get("merges"), list):
        model["merges"] = _merges_as_strings(merges)
    return {**definition, "truncation": None, "padding": None, "model": model}


@contextmanager
def library_errors(doing: str = "not a usable tokenizer definition") -> Iterator[None]:
    """Turn what the library raises for a wrong definition into a `TokenizerError`.

    Args:
        doing: What the message begins with.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError, ModernBertError):
        raise
    except BaseException as error:  # the library's panics are not Exceptions
        raise TokenizerError(f"{doing}: {error}") from None


def fingerprint(definition: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a definition; white space and the order of keys do not matter."""
    text = json.dumps(definition, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def modernbert_definition(
    *, vocab: Mapping[str, int], merges: list[Any], added_tokens: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Define ModernBERT's tokenizer over a byte-level BPE (P section 2.2.1).

    Args:
        vocab: The id of each token of the BPE.
        merges: The merges of the BPE.
        added_tokens: The tokens that are found in a text before the BPE sees it, as objects of
            tokenizer.json. They must include the five special tokens.

    Returns:
        The content of tokenizer.json.
    """
    added_tokens = list(added_tokens)
    ids = {token["content"]: token["id"] for token in added_tokens}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": merges,
    }
    return canonical(
        {
            "version": "1.0",
            "added_tokens": added_tokens,
            "normalizer": NORMALIZER,
            "pre_tokenizer": BYTE_LEVEL,
            "post_processor": _template({token: ids[token] for token in SPECIAL_TOKENS}),
            "decoder": BYTE_LEVEL,
            "model": model,
        }
    )


def closing_tokens(first_id: int, *, num_unused: int = NUM_UNUSED) -> list[dict[str, Any]]:
    """Return the added tokens at the end of the vocabulary: special ones, then unused slots."""
    special = [special_token(token, first_id + i) for i, token in enumerate(SPECIAL_TOKENS)]
    first_unused = first_id + len(special)
    return special + [plain_token(f"[unused{i}]", first_unused + i) for i in range(num_unused)]


def special_token(content: str, token_id: int) -> dict[str, Any]:
    """Return a special token, matched before normalisation; `skip_special_tokens` drops it."""
    # The mask stands for a word with the space before it, as in " Paris".
    lstrip = content == "[MASK]"
    token = plain_token(content, token_id)
    return {**token, "lstrip": lstrip, "normalized": False, "special": True}


def plain_token(content: str, token_id: int) -> dict[str, Any]:
    """Return an added token, matched in the normalised text before the BPE sees it."""
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": True,
        "special": False,
    }


def _template(special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the templates `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, all of type 0."""
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [cls, first, sep],
        "pair": [cls, first, sep, second, sep],
        "special_tokens": {
            token: {"id": token, "ids": [special_ids[token]], "tokens": [token]}
            for token in sorted(special_ids)
        },
    }


def _looks_like_a_tokenizer(definition: Any) -> bool:
    """Return whether the parts that are read here exist; the library checks the rest."""
    if not isinstance(definition, dict) or not isinstance(definition.get("model"), dict):
        return False
    added, vocab = definition.get("added_tokens"), definition["model"].get("vocab")
    flags = plain_token("", 0).keys()
    return (
        isinstance(added, list)
        and all(isinstance(token, dict) and flags <= token.keys() for token in added)
        and isinstance(vocab, dict | list)
        and len(vocab) > 0
    )


def _merges_as_strings(merges: list[Any]) -> list[Any]:
    if not all(isinstance(merge, str) or _can_be_a_string(merge) for merge in merges):
        return merges
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _can_be_a_string(merge: Any) -> bool:
    return isinstance(merge, list) and all(
        isinstance(part, str) and " " not in part for part in merge
    )


# Any text that has tokens will do, and which text has some depends on the vocabulary.
_PROBES = ("a", "0", ".", "あ", "א")


@dataclass(frozen=True, kw_only=True)
class Template:
    """The ids of the special tokens around a text and around a pair.

    Attributes:
        before: The ids before a single text.
        after: The ids after a single text.
        pair_before: The ids before the first text of a pair.
        between: The ids between the texts of a pair.
        pair_after: The ids after the second text of a pair.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    pair_before: tuple[int, ...]
    between: tuple[int, ...]
    pair_after: tuple[int, ...]

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> "Template":
        """Derive the template from what the tokenizer's own post-processor does.

        Raises:
            TokenizerError: No letter has a token, or special tokens are put inside a text.
        """
        probes = (p for p in _PROBES if backend.encode(p, add_special_tokens=False).ids)
        probe = next(probes, None)
        if probe is None:
            raise TokenizerError("the vocabulary has no token for any of a, 0, ., あ and א")
        (before, after), (pair_before, between, pair_after) = (
            _around(backend.encode(probe)),
            _around(backend.encode(probe, probe)),
        )
        return cls(
            before=before,
            after=after,
            pair_before=pair_before,
            between=between,
            pair_after=pair_after,
        )

    def frame(self, first: Sequence[int], second: Sequence[int] | None = None) -> list[int]:
        """Return the ids of a text or a pair with the special tokens."""
        if second is None:
            return [*self.before, *first, *self.after]
        return [*self.pair_before, *first, *self.between, *second, *self.pair_after]

    def num_special(self, num_texts: int) -> int:
        """Return the number of special tokens for one text or for two."""
        if num_texts == 1:
            return len(self.before) + len(self.after)
        return len(self.pair_before) + len(self.between) + len(self.pair_after)

    def bare(self, token_ids: Sequence[int]) -> list[int]:
        """Return a text's ids without the special tokens around it, if it has them."""
        ids = list(token_ids)
        if self.before and tuple(ids[: len(self.before)]) == self.before:
            ids = ids[len(self.before) :]
        if self.after and tuple(ids[-len(self.after) :]) == self.after:
            ids = ids[: -len(self.after)]
        return ids


def _around(encoding: tokenizers.Encoding) -> list[tuple[int, ...]]:
    """Return the special ids before the first text, between two texts, and after the last."""
    gaps: list[list[int]] = [[]]
    last = None
    for token_id, text in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if text is None:
            gaps[-1].append(token_id)
        elif text != last:
            last = text
            gaps.append([])
        elif gaps[-1]:
            raise TokenizerError("the template puts special tokens inside a text")
    return [tuple(gap) for gap in gaps]


def room_for_text(max_seqlen: int | None, num_special: int) -> int | None:
    """Return how many tokens of text fit beside the special tokens.

    Args:
        max_seqlen: The longest sequence, in tokens; None for no limit.
        num_special: The number of special tokens in the sequence.

    Returns:
        The number of tokens, or None for no limit.

    Raises:
        InputError: There is no room for any text.
    """
    if max_seqlen is None:
        return None
    if max_seqlen <= num_special:
        raise InputError(
            f"max_seqlen: got {max_seqlen}, expected at least {num_special + 1}: "
            f"{num_special} special tokens and one of text"
        )
    return max_seqlen - num_special


def cut_to(
    first: list[int], second: list[int] | None, room: int | None
) -> tuple[list[int], list[int] | None]:
    """Truncate a text or a pair to `room` tokens; of a pair, the longer text is cut first.

    >>> cut_to([1, 2, 3, 4], [5, 6], 5)
    ([1, 2, 3], [5, 6])

    Args:
        first: The token ids of the text.
        second: Those of the second text, if there is one.
        room: The most tokens of both together; None for no limit.

    Returns:
        What remains of both.
    """
    if room is None or second is None:
        return first[:room], second
    shorter = min(len(first), len(second), room // 2)
    if len(first) <= len(second):
        return first[:shorter], second[: room - shorter]
    return first[: room - shorter], second[:shorter]
