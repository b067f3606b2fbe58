"""`Tokenizer`: text to token ids and back, framed as its template says: `[CLS] A [SEP]`."""

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
from modernbert.tokenizer.folder import (
    USUAL_TOKENS,
    Roles,
    find_folder,
    read_model_max_length,
    read_roles,
    usual_roles,
    write_folder,
)
from modernbert.tokenizer.spans import Span, TextEncoding, WordEncoding, token_spans
from modernbert.tokenizer.template import Template, cut_to, room_for_text
from modernbert.tokenizer.texts import (
    may_cut,
    pieces,
    require_text,
    require_texts,
    require_token_ids,
)

__all__ = ["MODEL_MAX_LENGTH", "TextEncoding", "Tokenizer", "WordEncoding"]

MODEL_MAX_LENGTH = 8192
"""The longest sequence of ModernBERT, in tokens, special tokens included."""

V = TypeVar("V")


class Tokenizer:
    """A tokenizer in the format of the `tokenizers` library.

    Make one with `from_pretrained`, `from_file`, `train` or `derive`. It keeps no state between
    calls, may be used from several threads and can be pickled. `encode_batch` works on all cores;
    a process that forks afterwards is warned by the library and goes on with one core, so start
    worker processes by spawn, or set TOKENIZERS_PARALLELISM=false in them.

    Special tokens are known by their role, whatever they are called, and texts are framed as the
    tokenizer's own post-processor frames them. A special token's name in a text, such as "[MASK]",
    becomes that token, as in transformers, unless you ask for `split_special_tokens`.

    Attributes:
        vocab_size: One more than the highest id.
        template: The special tokens around texts.
        cls_token_id: What stands before a text: the template's first token, or where it has none
            the token of that role.
        sep_token_id: What ends a text, likewise.
        mask_token_id: What stands for a token that the model is to predict.
        pad_token_id: What fills padded rows; the end of a text where the vocabulary has none.
        unk_token_id: What stands for text that the vocabulary cannot write; the padding where it
            can write everything.
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
            definition: That content.
            model_max_length: The longest sequence, in tokens.
            roles: The token of each role, by transformers' name of the role; those that are not
                given go by the usual names.

        Raises:
            TokenizerError: It is no tokenizer, or no token has a role that a model needs.
        """
        definition = definitions.canonical(definition)
        self.model_max_length = model_max_length
        self._json = json.dumps(definition, ensure_ascii=False)
        with definitions.library_errors():
            self._backend = tokenizers.Tokenizer.from_str(self._json)
            vocab = self._backend.get_vocab()
            self.template = Template.of(self._backend)
        self.roles: Roles = {**usual_roles(vocab), **_known(roles or {}, vocab)}
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
        """What to write in a text where a token is to be predicted, such as "[MASK]"."""
        return self.roles["mask_token"]

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        model_max_length: int = MODEL_MAX_LENGTH,
        roles: Roles | None = None,
    ) -> "Tokenizer":
        """Load a tokenizer.json; the arguments are those of the constructor.

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
        """Load from a folder that holds a tokenizer.json, or from the hub.

        The files beside it say which token has which role, and how long a sequence may be.

        Raises:
            TokenizerError: No such folder, or its files cannot be used.
        """
        folder = find_folder(folder_or_hub_id)
        return cls.from_file(
            folder / TOKENIZER_FILE,
            model_max_length=read_model_max_length(folder) or MODEL_MAX_LENGTH,
            roles=read_roles(folder),
        )

    def save_pretrained(self, folder: Path | str, *, model_max_length: int | None = None) -> None:
        """Write the files that `from_pretrained` and transformers' AutoTokenizer load.

        model_max_length: where transformers truncates, in tokens; this tokenizer's own when None.

        Raises:
            TokenizerError: the folder cannot be written; a file that was there stays whole.
        """
        write_folder(
            Path(folder),
            self.definition,
            special_tokens=self.roles,
            model_max_length=model_max_length or self.model_max_length,
        )

    def lowercased(self) -> "Tokenizer":
        """Make a tokenizer that lowercases texts before all else; one that does so is returned."""
        definition = self.definition
        if (changed := definitions.lowercased(definition)) is None:
            return self
        return Tokenizer(changed, model_max_length=self.model_max_length, roles=self.roles)

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
        split_special_tokens: bool = False,
    ) -> list[int]:
        """The token ids of a text, or of two.

        Args:
            text: The text.
            text_pair: Another one, which follows it in the same sequence.
            special_tokens: Whether to frame the text as the template says.
            max_seqlen: The most tokens to give, special ones included; of a pair the longer text
                is cut first.
            split_special_tokens: Whether the name of a special token in a text is text like any
                other, for texts of strangers.

        Raises:
            InputError: A text that is no str, or a `max_seqlen` that leaves no room for text.
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
        """The token ids of many texts, or pairs of texts: `encode` of each, on all cores.

        Raises:
            InputError: As `encode`, with the index of the text; or more texts than pairs.
        """
        texts = require_texts(texts, "texts")
        if text_pairs is not None:
            text_pairs = require_texts(text_pairs, "text_pairs")
            if len(text_pairs) != len(texts):
                raise InputError(f"text_pairs: got {len(text_pairs)} for {len(texts)} texts")
        return self._encode(texts, text_pairs, special_tokens, max_seqlen, split_special_tokens)

    def encode_words(self, words: Iterable[str], *, max_seqlen: int | None = None) -> WordEncoding:
        """The token ids of words that someone else split, as in named-entity data.

        Each word, the first too, gets the space before it that it has in running text: without it
        a word's tokens are those of a word's tail, which the model hardly knows. So a word has the
        same tokens wherever it stands, and at least one unless it is cut off by `max_seqlen`.

        Raises:
            InputError: a word that is no str, or a `max_seqlen` that leaves no room for words.
        """
        room = room_for_text(max_seqlen, self.template.num_special(1))
        token_ids: list[int] = []
        word_ids: list[int | None] = []
        offsets: list[Span] = []
        for index, word in enumerate(require_texts(words, "words")):
            ids, spans = self._encode_word(word)
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
        """The token ids of a text as by `encode`, and where each token stands in it.

        Raises:
            InputError: as `encode`.
        """
        num_special = self.template.num_special(1) if special_tokens else 0
        room = room_for_text(max_seqlen, num_special)
        token_ids, offsets = self._encode_with_spans(require_text(text, "text"))
        token_ids, offsets = token_ids[:room], offsets[:room]
        if special_tokens:
            token_ids = self.template.frame(token_ids)
            offsets = self._between((0, 0), offsets)
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
        """The ids of each text without special tokens around them."""
        cut = [list(pieces(text)) if self._cuts_long_texts else [text] for text in texts]
        if len(cut) == 1 and len(cut[0]) == 1:  # no threads for one short text
            return [backend.encode(texts[0], add_special_tokens=False).ids]
        flat = backend.encode_batch_fast(list(chain(*cut)), add_special_tokens=False)
        encodings = iter(flat)
        return [list(chain(*(next(encodings).ids for _ in text))) for text in cut]

    @cached_property
    def _backend_of_text(self) -> tokenizers.Tokenizer:
        """The same tokenizer, for which special tokens in a text are text."""
        backend = tokenizers.Tokenizer.from_str(self._json)
        backend.encode_special_tokens = True
        return backend

    def _between(self, special: V, values: list[V]) -> list[V]:
        """One value a token of a text, with another for the special tokens around it."""
        before, after = len(self.template.before), len(self.template.after)
        return [*[special] * before, *values, *[special] * after]

    def _encode_with_spans(self, text: str) -> tuple[list[int], list[Span]]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, token_spans(text, encoding.offsets)

    def _encode_word(self, word: str) -> tuple[list[int], list[Span]]:
        if word.startswith(" "):
            return self._encode_with_spans(word)
        ids, spans = self._encode_with_spans(f" {word}")
        return ids, [(max(start - 1, 0), max(end - 1, 0)) for start, end in spans]


def _known(roles: Roles, vocab: Mapping[str, int]) -> Roles:
    """The roles whose token the vocabulary has."""
    return {role: token for role, token in roles.items() if token in vocab}


def _having(ids: Mapping[str, int], *names: str, default: int | None = None) -> tuple[int, ...]:
    """The ids of some roles that there are; the default where there is none."""
    found = tuple(ids[f"{name}_token"] for name in names if f"{name}_token" in ids)
    return found if found or default is None else (default,)


def _first(ids: tuple[int, ...], role: str) -> int:
    if not ids:
        raise TokenizerError(
            f"no token has the role {role}_token; name it as {role}_token in "
            f"tokenizer_config.json, or call it {' or '.join(USUAL_TOKENS[f'{role}_token'])}"
        )
    return ids[0]


def _unpickle(definition_json: str, model_max_length: int, roles: Roles) -> Tokenizer:
    return Tokenizer(json.loads(definition_json), model_max_length=model_max_length, roles=roles)
