"""`Tokenizer`: text to token ids and back, with special tokens around it: `[CLS] A [SEP]`."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import tokenizers

from modernbert.errors import InputError, TokenizerError
from modernbert.kinds import TOKENIZER_FILE
from modernbert.tokenizer import definition as definitions
from modernbert.tokenizer.definition import Template, cut_to, room_for_text
from modernbert.tokenizer.folder import (
    USUAL_TOKENS,
    Roles,
    find_folder,
    read_model_max_length,
    read_roles,
    usual_roles,
    write_folder,
)
from modernbert.tokenizer.texts import (
    Span,
    TextEncoding,
    WordEncoding,
    may_cut,
    pieces,
    require_text,
    require_texts,
    require_token_ids,
    token_spans,
)

__all__ = ["MODEL_MAX_LENGTH", "TextEncoding", "Tokenizer", "WordEncoding"]

MODEL_MAX_LENGTH = 8192
"""The longest sequence of ModernBERT, in tokens, including special tokens."""

_SHORT_CHARACTERS = 4096
_MANY_TOKENS = 16_384
# More tokens than one letter can have: where it ends is known from those after a cut.
_SPARE_TOKENS = 16

V = TypeVar("V")

_ENCODING = "the tokenizer cannot encode a text"
_DECODING = "the tokenizer cannot decode these ids"


class Tokenizer:
    """A tokenizer in the format of the `tokenizers` library.

    Make one with `from_pretrained`, `from_file`, `train` or `derive`. A tokenizer keeps no state
    between calls, can be used from several threads and can be pickled. `encode_batch` uses all
    cores. If your process forks after that, the library prints a warning and uses one core in the
    child; to avoid this, start worker processes by spawn or set TOKENIZERS_PARALLELISM=false.

    Special tokens are identified by their role, whatever they are called, and are put around texts
    as the tokenizer's own post-processor does it. The name of a special token in a text, such as
    "[MASK]", becomes that token, as in transformers, unless you set `split_special_tokens`.

    Attributes:
        model_max_length: The longest sequence, in tokens.
        roles: The token of each role, such as `mask_token`.
        vocab_size: One more than the highest id.
        template: The special tokens around texts.
        cls_token_id: The first token of a sequence: that of the template, or, if it has none, the
            token with that role.
        sep_token_id: The last token of a sequence, found in the same way.
        mask_token_id: The token that stands for a token to predict.
        pad_token_id: The token that fills padded rows; `sep_token_id` if the vocabulary has none.
        unk_token_id: The token for text that the vocabulary cannot represent; `pad_token_id` if it
            can represent everything.
    """

    def __init__(
        self,
        definition: Mapping[str, Any],
        *,
        model_max_length: int = MODEL_MAX_LENGTH,
        roles: Roles | None = None,
    ) -> None:
        """Build from the content of a tokenizer.json.

        Args:
            definition: The content of tokenizer.json.
            model_max_length: The longest sequence, in tokens.
            roles: The token of each role, by transformers' name of the role. Tokens of other roles
                are found by their usual names.

        Raises:
            TokenizerError: It is not a tokenizer, or a role that a model needs has no token.
        """
        definition = definitions.canonical(definition)
        self.model_max_length = model_max_length
        self._json = json.dumps(definition, ensure_ascii=False)
        with definitions.library_errors():
            self._backend = tokenizers.Tokenizer.from_str(self._json)
            vocab = self._backend.get_vocab()
            self.template = Template.of(self._backend)
        known = {role: token for role, token in (roles or {}).items() if token in vocab}
        self.roles: Roles = {**usual_roles(vocab), **known}
        ids = {role: vocab[token] for role, token in self.roles.items()}
        self.vocab_size = 1 + max(vocab.values())
        self.cls_token_id = _first((*self.template.before, *_having(ids, "cls", "bos")), "cls")
        ends = (*self.template.after[::-1], *_having(ids, "sep", "eos"))
        self.sep_token_id = _first(ends, "sep")
        self.mask_token_id = _first(_having(ids, "mask"), "mask")
        self.pad_token_id = _having(ids, "pad", default=self.sep_token_id)[0]
        self.unk_token_id = _having(ids, "unk", default=self.pad_token_id)[0]
        self._cuts_long_texts = may_cut(definition)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        """The ids of `unk`, `cls`, `sep`, `pad` and `mask`."""
        ends = self.cls_token_id, self.sep_token_id
        return self.unk_token_id, *ends, self.pad_token_id, self.mask_token_id

    @property
    def mask_token(self) -> str:
        """The text that stands for a token to predict, such as "[MASK]"."""
        return self.roles["mask_token"]

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        model_max_length: int = MODEL_MAX_LENGTH,
        roles: Roles | None = None,
    ) -> "Tokenizer":
        """Load a tokenizer.json.

        Args:
            path: A tokenizer.json, as the `tokenizers` library writes it.
            model_max_length: As in the constructor.
            roles: As in the constructor.

        Raises:
            TokenizerError: The file is missing, broken, or not a tokenizer for this model.
        """
        definition = definitions.read_definition(Path(path))
        try:
            return cls(definition, model_max_length=model_max_length, roles=roles)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str) -> "Tokenizer":
        """Load a tokenizer from a folder or from the hub.

        The files next to tokenizer.json name the token of each role and the longest sequence.

        Args:
            folder_or_hub_id: A folder that holds a tokenizer.json, or a hub id.

        Raises:
            TokenizerError: There is no such folder, or its files cannot be used.
        """
        folder = find_folder(folder_or_hub_id)
        return cls.from_file(
            folder / TOKENIZER_FILE,
            model_max_length=read_model_max_length(folder) or MODEL_MAX_LENGTH,
            roles=read_roles(folder),
        )

    def save_pretrained(self, folder: Path | str, *, model_max_length: int | None = None) -> None:
        """Write the files that `from_pretrained` and transformers' AutoTokenizer load.

        Args:
            folder: The folder to write to.
            model_max_length: The length at which transformers truncates, in tokens; by default
                that of this tokenizer.

        Raises:
            TokenizerError: The folder cannot be written; files that were there stay whole.
        """
        write_folder(
            Path(folder),
            self.definition,
            special_tokens=self.roles,
            model_max_length=model_max_length or self.model_max_length,
        )

    def lowercased(self) -> "Tokenizer":
        """Return a tokenizer that lowercases texts first; itself if it lowercases already."""
        definition = self.definition
        if (changed := definitions.lowercased(definition)) is None:
            return self
        return Tokenizer(changed, model_max_length=self.model_max_length, roles=self.roles)

    @property
    def definition(self) -> dict[str, Any]:
        """The content of tokenizer.json, as a copy."""
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
        split_special_tokens: bool = False,
    ) -> list[int]:
        """Encode a text or a pair of texts.

        Args:
            text: Any text; the first one of a pair.
            text_pair: A second text, which follows the first in the same sequence.
            special_tokens: Whether to add the special tokens of the template.
            max_seqlen: The longest sequence, in tokens, including special ones. Longer texts are
                truncated; of a pair, the longer text is cut first.
            split_special_tokens: Whether to treat the name of a special token in a text as
                ordinary text. Set this for texts from untrusted sources.

        Returns:
            The token ids.

        Raises:
            InputError: A text is not a str, or `max_seqlen` leaves no room for text.
        """
        texts = [require_text(text, "text")]
        pairs = None if text_pair is None else [require_text(text_pair, "text_pair")]
        return self._encode(texts, pairs, special_tokens, max_seqlen, split_special_tokens)[0]

    def encode_batch(
        self,
        texts: Iterable[str],
        text_pairs: Iterable[str] | None = None,
        *,
        special_tokens: bool = True,
        max_seqlen: int | None = None,
        split_special_tokens: bool = False,
    ) -> list[list[int]]:
        """Encode many texts or pairs of texts on all cores.

        Args:
            texts: Texts, or pairs of texts.
            text_pairs: The second text of each pair.
            special_tokens: As in `encode`.
            max_seqlen: As in `encode`.
            split_special_tokens: As in `encode`.

        Returns:
            The token ids of each text or pair, as `encode` gives them.

        Raises:
            InputError: As in `encode`, with the index of the text; or the numbers of texts and of
                second texts differ.
        """
        texts = require_texts(texts, "texts")
        if text_pairs is not None:
            text_pairs = require_texts(text_pairs, "text_pairs")
            if len(text_pairs) != len(texts):
                raise InputError(f"text_pairs: got {len(text_pairs)} for {len(texts)} texts")
        return self._encode(texts, text_pairs, special_tokens, max_seqlen, split_special_tokens)

    def encode_words(self, words: Iterable[str], *, max_seqlen: int | None = None) -> WordEncoding:
        """Encode words that are already split, as in named-entity data.

        Every word, including the first, is encoded with the space before it that it has in running
        text. Without the space its tokens would be those of the end of a longer word, which the
        model hardly knows. So a word has the same tokens wherever it is in a text, and at least
        one token unless `max_seqlen` cuts it off: a word that vanishes when it is normalized has
        the unknown token.

        Args:
            words: The words of one text.
            max_seqlen: The longest sequence, in tokens, including special ones.

        Returns:
            The token ids, with the word of each token and its offsets in it.

        Raises:
            InputError: A word is not a str, or `max_seqlen` leaves no room for words.
        """
        room = room_for_text(max_seqlen, self.template.num_special(1))
        token_ids: list[int] = []
        word_ids: list[int | None] = []
        offsets: list[Span] = []
        for index, word in enumerate(require_texts(words, "words")):
            ids, spans = self._encode_word(word)
            if not ids:
                ids, spans = [self.unk_token_id], [(0, len(word))]
            token_ids += ids
            word_ids += [index] * len(ids)
            offsets += spans
        return WordEncoding(
            token_ids=self.template.frame(token_ids[:room]),
            word_ids=self._between(None, word_ids[:room]),
            offsets=self._between((0, 0), offsets[:room]),
        )

    def encode_with_offsets(
        self, text: str, *, special_tokens: bool = True, max_seqlen: int | None = None
    ) -> TextEncoding:
        """Encode a text and say where each token is in it.

        Args:
            text: Any text.
            special_tokens: As in `encode`.
            max_seqlen: As in `encode`.

        Returns:
            The token ids that `encode` gives, with the offsets of each token.

        Raises:
            InputError: As in `encode`.
        """
        num_special = self.template.num_special(1) if special_tokens else 0
        room = room_for_text(max_seqlen, num_special)
        token_ids, offsets = self._encode_with_spans(require_text(text, "text"), room)
        if special_tokens:
            token_ids = self.template.frame(token_ids)
            offsets = self._between((0, 0), offsets)
        return TextEncoding(token_ids=token_ids, offsets=offsets)

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Decode token ids; bytes that are not valid UTF-8 become U+FFFD.

        Args:
            token_ids: (num_tokens,), a list, a NumPy array or a tensor.
            skip_special_tokens: Whether to leave out special tokens.

        Returns:
            The text.

        Raises:
            InputError: An id is not an integer, or it is outside the vocabulary.
        """
        ids = require_token_ids(token_ids, self.vocab_size, "token_ids")
        with definitions.library_errors(_DECODING):
            return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def decode_batch(
        self, batch: Iterable[Iterable[int]], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Decode many rows of token ids on all cores.

        Args:
            batch: Rows of token ids, each as in `decode`.
            skip_special_tokens: Whether to leave out special tokens.

        Returns:
            The text of each row.

        Raises:
            InputError: An id is not an integer, or it is outside the vocabulary.
        """
        rows = [
            require_token_ids(row, self.vocab_size, f"batch[{index}]")
            for index, row in enumerate(batch)
        ]
        with definitions.library_errors(_DECODING):
            return list(self._backend.decode_batch(rows, skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary spells it ("Ġof"), or None if it has none."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id, as the vocabulary spells it.

        Raises:
            InputError: The vocabulary has no such id.
        """
        (token_id,) = require_token_ids([token_id], self.vocab_size, "token_id")
        token = self._backend.id_to_token(token_id)
        if token is None:
            raise InputError(f"token_id: {token_id} is not in the vocabulary")
        return str(token)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._json, self.model_max_length, dict(self.roles))

    def _encode(
        self,
        texts: list[str],
        pairs: list[str] | None,
        special_tokens: bool,
        max_seqlen: int | None,
        split_special_tokens: bool,
    ) -> list[list[int]]:
        backend = self._backend_of_text if split_special_tokens else self._backend
        num_special = self.template.num_special(1 if pairs is None else 2) if special_tokens else 0
        room = room_for_text(max_seqlen, num_special)
        rows = self._tokenize(texts, backend)
        pair_rows = [None] * len(rows) if pairs is None else self._tokenize(pairs, backend)
        cut = (cut_to(first, second, room) for first, second in zip(rows, pair_rows, strict=True))
        if special_tokens:
            return [self.template.frame(first, second) for first, second in cut]
        return [first + (second or []) for first, second in cut]

    def _tokenize(self, texts: list[str], backend: tokenizers.Tokenizer) -> list[list[int]]:
        """Encode each text without special tokens around it."""
        cut = [list(pieces(text)) if self._cuts_long_texts else [text] for text in texts]
        with definitions.library_errors(_ENCODING):
            # No threads for one short text; a long one would keep the interpreter's lock.
            if len(cut) == 1 and len(texts[0]) <= _SHORT_CHARACTERS:
                return [backend.encode(texts[0], add_special_tokens=False).ids]
            flat = backend.encode_batch_fast(list(chain(*cut)), add_special_tokens=False)
        encodings = iter(flat)
        return [list(chain(*(next(encodings).ids for _ in text))) for text in cut]

    @cached_property
    def _backend_of_text(self) -> tokenizers.Tokenizer:
        """The same tokenizer, which treats the names of special tokens as ordinary text."""
        with definitions.library_errors():
            backend = tokenizers.Tokenizer.from_str(self._json)
        backend.encode_special_tokens = True
        return backend

    def _between(self, special: V, values: list[V]) -> list[V]:
        """Put a value for each special token around the values of a text's tokens."""
        before, after = len(self.template.before), len(self.template.after)
        return [*[special] * before, *values, *[special] * after]

    def _encode_with_spans(
        self, text: str, room: int | None = None
    ) -> tuple[list[int], list[Span]]:
        """The ids and the spans of the first `room` tokens of a text, or of all."""
        with definitions.library_errors(_ENCODING):
            if len(text) <= _SHORT_CHARACTERS:
                encoding = self._backend.encode(text, add_special_tokens=False)
            else:  # as in `_tokenize`
                (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
        number = len(encoding) if room is None else min(room + _SPARE_TOKENS, len(encoding))
        if len(encoding) <= _MANY_TOKENS:
            offsets = encoding.offsets[:number]
        else:  # all at once would keep the lock too
            offsets = [encoding.token_to_chars(place) or (0, 0) for place in range(number)]
        end = len(text) if number == len(encoding) else offsets[-1][1]
        return encoding.ids[:room], token_spans(text[:end], offsets)[:room]

    def _encode_word(self, word: str) -> tuple[list[int], list[Span]]:
        if word.startswith(" "):
            return self._encode_with_spans(word)
        ids, spans = self._encode_with_spans(f" {word}")
        return ids, [(max(start - 1, 0), max(end - 1, 0)) for start, end in spans]


def _having(ids: Mapping[str, int], *names: str, default: int | None = None) -> tuple[int, ...]:
    """Return the ids of those of some roles that have a token, or else the default."""
    found = tuple(ids[f"{name}_token"] for name in names if f"{name}_token" in ids)
    return found if found or default is None else (default,)


def _first(ids: tuple[int, ...], role: str) -> int:
    if not ids:
        raise TokenizerError(
            f"no token has the role {role}_token; set {role}_token in tokenizer_config.json, or "
            f"call the token {' or '.join(USUAL_TOKENS[f'{role}_token'])}"
        )
    return ids[0]


def _unpickle(definition_json: str, model_max_length: int, roles: Roles) -> Tokenizer:
    return Tokenizer(json.loads(definition_json), model_max_length=model_max_length, roles=roles)
