"""`Tokenizer`: text to token ids and back, framed as `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers

from modernbert.errors import InputError, TokenizerError
from modernbert.tokenizer import definition as definitions
from modernbert.tokenizer.checks import require_text, require_texts, require_token_ids
from modernbert.tokenizer.folder import (
    TOKENIZER_FILE,
    find_folder,
    read_model_max_length,
    write_folder,
)
from modernbert.tokenizer.pieces import may_cut, pieces
from modernbert.tokenizer.spans import Span, TextEncoding, WordEncoding, token_spans
from modernbert.tokenizer.truncation import cut_to, room_for_text

__all__ = ["MODEL_MAX_LENGTH", "TextEncoding", "Tokenizer", "WordEncoding"]

MODEL_MAX_LENGTH = 8192
"""The longest sequence of ModernBERT, in tokens, special tokens included."""


class Tokenizer:
    """A tokenizer in the format of the `tokenizers` library, with ModernBERT's special tokens.

    Make one with `from_pretrained`, `from_file`, `train` or `derive`. It keeps no state between
    calls, may be used from several threads and can be pickled. `encode_batch` works on all cores;
    a process that forks afterwards is warned by the library and goes on with one core, so start
    worker processes by spawn, or set TOKENIZERS_PARALLELISM=false in them.

    A special token's name in a text, such as "[MASK]", becomes that token, as in transformers.
    """

    def __init__(
        self, definition: Mapping[str, Any], *, model_max_length: int = MODEL_MAX_LENGTH
    ) -> None:
        """Build from the content of a tokenizer.json.

        Raises:
            TokenizerError: it is no tokenizer, lacks a special token or frames texts otherwise.
        """
        definition = definitions.canonical(definition)
        self.model_max_length = model_max_length
        self._json = json.dumps(definition, ensure_ascii=False)
        with definitions.library_errors():
            self._backend = tokenizers.Tokenizer.from_str(self._json)
        special = [_special_id(self._backend, token) for token in definitions.SPECIAL_TOKENS]
        self.special_token_ids: tuple[int, ...] = tuple(special)
        self.unk_token_id, self.cls_token_id, self.sep_token_id = special[:3]
        self.pad_token_id, self.mask_token_id = special[3:]
        self.vocab_size = 1 + max(self._backend.get_vocab().values())
        self._cuts_long_texts = may_cut(definition)
        self._require_frame()

    @classmethod
    def from_file(
        cls, path: Path | str, *, model_max_length: int = MODEL_MAX_LENGTH
    ) -> "Tokenizer":
        """Load a tokenizer.json.

        Raises:
            TokenizerError: the file is missing, broken, or not a tokenizer for this model.
        """
        definition = definitions.read_definition(Path(path))
        try:
            return cls(definition, model_max_length=model_max_length)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> "Tokenizer":
        """Load from a folder that holds a tokenizer.json, or from the hub.

        Raises:
            TokenizerError: no such folder, or its files cannot be used.
        """
        folder = find_folder(folder_or_hub_id)
        model_max_length = read_model_max_length(folder) or MODEL_MAX_LENGTH
        return cls.from_file(folder / TOKENIZER_FILE, model_max_length=model_max_length)

    def save_pretrained(self, folder: Path | str, *, model_max_length: int | None = None) -> None:
        """Write the files that `from_pretrained` and transformers' AutoTokenizer load.

        model_max_length: where transformers truncates, in tokens; this tokenizer's own when None.

        Raises:
            TokenizerError: the folder cannot be written; a file that was there stays whole.
        """
        write_folder(
            Path(folder),
            self.definition,
            special_tokens={
                f"{token.strip('[]').lower()}_token": token for token in definitions.SPECIAL_TOKENS
            },
            model_max_length=model_max_length or self.model_max_length,
        )

    @property
    def definition(self) -> dict[str, Any]:
        """The content of its tokenizer.json; a change of it changes nothing here."""
        content: dict[str, Any] = json.loads(self._json)
        return content

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of everything that decides the ids of a text."""
        return definitions.fingerprint(self.definition)

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        special_tokens: bool = True,
        max_seqlen: int | None = None,
    ) -> list[int]:
        """The token ids of a text, or of two.

        special_tokens: whether to add [CLS] and [SEP].
        max_seqlen: the most tokens to give, special ones included; of a pair the longer text is
            cut first.

        Raises:
            InputError: a text that is no str, or a `max_seqlen` that leaves no room for text.
        """
        pairs = None if text_pair is None else [require_text(text_pair, "text_pair")]
        return self._encode([require_text(text, "text")], pairs, special_tokens, max_seqlen)[0]

    def encode_batch(
        self,
        texts: Iterable[str],
        text_pairs: Iterable[str] | None = None,
        *,
        special_tokens: bool = True,
        max_seqlen: int | None = None,
    ) -> list[list[int]]:
        """The token ids of many texts, or pairs of texts: `encode` of each, on all cores.

        Raises:
            InputError: as `encode`, with the index of the text; or more texts than pairs.
        """
        texts = require_texts(texts, "texts")
        if text_pairs is not None:
            text_pairs = require_texts(text_pairs, "text_pairs")
            if len(text_pairs) != len(texts):
                raise InputError(f"text_pairs: got {len(text_pairs)} for {len(texts)} texts")
        return self._encode(texts, text_pairs, special_tokens, max_seqlen)

    def encode_words(self, words: Iterable[str], *, max_seqlen: int | None = None) -> WordEncoding:
        """The token ids of words that someone else split, as in named-entity data.

        Each word, the first too, gets the space before it that it has in running text: without it
        a word's tokens are those of a word's tail, which the model hardly knows. So a word has the
        same tokens wherever it stands, and at least one unless it is cut off by `max_seqlen`.

        Raises:
            InputError: a word that is no str, or a `max_seqlen` that leaves no room for words.
        """
        room = room_for_text(max_seqlen, num_special=2)
        token_ids: list[int] = []
        word_ids: list[int | None] = []
        offsets: list[Span] = []
        for index, word in enumerate(require_texts(words, "words")):
            ids, spans = self._encode_word(word)
            token_ids += ids
            word_ids += [index] * len(ids)
            offsets += spans
        return WordEncoding(
            token_ids=self._frame(token_ids[:room]),
            word_ids=[None, *word_ids[:room], None],
            offsets=[(0, 0), *offsets[:room], (0, 0)],
        )

    def encode_with_offsets(
        self, text: str, *, special_tokens: bool = True, max_seqlen: int | None = None
    ) -> TextEncoding:
        """The token ids of a text as by `encode`, and where each token stands in it.

        Raises:
            InputError: as `encode`.
        """
        room = room_for_text(max_seqlen, num_special=2 if special_tokens else 0)
        token_ids, offsets = self._encode_with_spans(require_text(text, "text"))
        token_ids, offsets = token_ids[:room], offsets[:room]
        if special_tokens:
            token_ids = self._frame(token_ids)
            offsets = [(0, 0), *offsets, (0, 0)]
        return TextEncoding(token_ids=token_ids, offsets=offsets)

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD.

        token_ids: a list, a NumPy array or a tensor (num_tokens,).

        Raises:
            InputError: an id that is no whole number or is outside the vocabulary.
        """
        ids = require_token_ids(token_ids, self.vocab_size, "token_ids")
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def decode_batch(
        self, batch: Iterable[Iterable[int]], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """The texts of many rows of token ids: `decode` of each, on all cores."""
        rows = [
            require_token_ids(row, self.vocab_size, f"batch[{index}]")
            for index, row in enumerate(batch)
        ]
        return list(self._backend.decode_batch(rows, skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token in the vocabulary's own spelling ("Ġof"); None when it has none."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str:
        """The token of an id, in the vocabulary's own spelling.

        Raises:
            InputError: no such id.
        """
        (token_id,) = require_token_ids([token_id], self.vocab_size, "token_id")
        token = self._backend.id_to_token(token_id)
        if token is None:
            raise InputError(f"token_id: {token_id} is not in the vocabulary")
        return str(token)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._json, self.model_max_length)

    def _require_frame(self) -> None:
        """The model, and the packing, rely on this frame; other tokenizers frame otherwise."""
        with definitions.library_errors():
            framed = self._backend.encode("").ids, self._backend.encode("", "").ids
        if framed != (self._frame([]), self._frame([], [])):
            raise TokenizerError(
                "its template does not frame texts as [CLS] A [SEP] and [CLS] A [SEP] B [SEP]"
            )

    def _encode(
        self,
        texts: list[str],
        pairs: list[str] | None,
        special_tokens: bool,
        max_seqlen: int | None,
    ) -> list[list[int]]:
        num_special = (2 if pairs is None else 3) if special_tokens else 0
        room = room_for_text(max_seqlen, num_special)
        rows = self._tokenize(texts)
        pair_rows = [None] * len(rows) if pairs is None else self._tokenize(pairs)
        cut = (cut_to(first, second, room) for first, second in zip(rows, pair_rows, strict=True))
        if special_tokens:
            return [self._frame(first, second) for first, second in cut]
        return [first + (second or []) for first, second in cut]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text without special tokens around them."""
        cut = [list(pieces(text)) if self._cuts_long_texts else [text] for text in texts]
        if len(cut) == 1 and len(cut[0]) == 1:  # no threads for one short text
            return [self._backend.encode(texts[0], add_special_tokens=False).ids]
        flat = self._backend.encode_batch_fast(list(chain(*cut)), add_special_tokens=False)
        encodings = iter(flat)
        return [list(chain(*(next(encodings).ids for _ in text))) for text in cut]

    def _frame(self, first: list[int], second: list[int] | None = None) -> list[int]:
        framed = [self.cls_token_id, *first, self.sep_token_id]
        return framed if second is None else [*framed, *second, self.sep_token_id]

    def _encode_with_spans(self, text: str) -> tuple[list[int], list[Span]]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, token_spans(text, encoding.offsets)

    def _encode_word(self, word: str) -> tuple[list[int], list[Span]]:
        if word.startswith(" "):
            return self._encode_with_spans(word)
        ids, spans = self._encode_with_spans(f" {word}")
        return ids, [(max(start - 1, 0), max(end - 1, 0)) for start, end in spans]


def _special_id(backend: tokenizers.Tokenizer, token: str) -> int:
    token_id = backend.token_to_id(token)
    if token_id is None:
        expected = " ".join(definitions.SPECIAL_TOKENS)
        raise TokenizerError(f"lacks the special token {token}; expected all of {expected}")
    return int(token_id)


def _unpickle(definition_json: str, model_max_length: int) -> Tokenizer:
    return Tokenizer(json.loads(definition_json), model_max_length=model_max_length)
