"""Where the words of a text begin and end, as in the data that a tagger has learnt from."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain, pairwise
from string import ascii_uppercase
from typing import Any, Literal, get_args

from modernbert.errors import ConfigError

SplitAt = Literal["punctuation", "blanks", "characters"]

_MAX_SHAPES = 500
_MAX_WHOLE = 5_000  # words of a language without blanks; others have hundreds
_ENOUGH = 20  # of a mark that stands alone, before it counts that it rarely stands within a word
_RARELY = 3  # times as often alone as within words
_FEW = 5  # different words that begin with a mark, before it counts as a part of them

# Scripts that put no blanks between words: each character is a word, unless data say otherwise.
_NO_BLANKS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ec6\u1000-\u103f\u1780-\u17d2"
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = f"[^\\W{_NO_BLANKS}]"
# What is written upon or joins a character, such as accents, stands for this one.
_JOINED = "\u0640"
_EMOJI = "\u2190-\u21ff\u2300-\u27bf\u2900-\u2bff\U0001f000-\U0001fbff"
# Marks that stand in no word, whatever is beside them.
_NEVER_WITHIN = (
    '\u2014\u2026"\u201c\u201d\u201e\u00ab\u00bb()[]{}<>;!?|,:'
    "\u061b\u061f\u060c\u0964\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"
    "\u3008-\u3011\u3014-\u301b"
)
_BETWEEN_DIGITS = r"(?<=\d)[,:](?=\d)"
_ADDRESS = rf"{_LETTER}+://\S*[\w/]"
_ABBREVIATION = r"(?:[^\W\d_]\.){2,}"
_FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
# What follows a word that has ended: neither a letter nor a mark within the word.
_ENDED = r"(?!\w|[^\w\s]\w)"

_ENDING = re.compile(r"'[^\W\d_]{1,3}|n't|(?:-[^\W\d_]{1,4}){1,2}")
_BEGINNING = re.compile(r"[^\W\d_]{1,5}'")
_ATTACHED = re.compile(r"[(\"].*\w|.*\w.*[,;:!?)\"]")
_ALONE = re.compile(r"[(),;:!?\"]")
_WITHIN = re.compile(r"(?<=[^\W\d_])[^\w\s](?=[^\W\d_])")
_LINK = re.compile(r"://|www\.|@")
_INITIAL = re.compile(r"[A-Z]\.")
_HAS_SHAPE = re.compile(r"\d|([^\w\s])\1\1")


@dataclass(frozen=True, kw_only=True)
class WordSplitting:
    """How texts are split into words.

    Attributes:
        at: Words end at blanks alone, or at punctuation too: then a word goes on over a mark
            within it, as in "don't" and "Ben-Elissar", and marks at its ends are words of their
            own, except for the periods of abbreviations such as "U.S.". With "characters", each
            is a word.
        whole: Words that are not split although they have marks at their ends, such as "Inc.".
        shapes: The same for words with numbers or with many marks, such as "$00" and "!!!": a 0
            is any digit, "000" three or more, and three equal marks are three or more.
        leading: Marks that belong to the word after them, such as "@" and "#".
        beginnings: Beginnings of words that are words of their own, such as "l'" in "l'Europe".
        endings: Endings of words that are words of their own, such as "'s" in "Europe's".
        apart: Marks at which words end within them too, such as "-".

    Beginnings and endings are found in capitals and with other apostrophes too.

    >>> splitting = WordSplitting(endings=("'s",))
    >>> text = "Ben-Elissar's U.S. visit, they don't say."
    >>> [text[start:end] for start, end in splitting.spans(text)]
    ['Ben-Elissar', "'s", 'U.S.', 'visit', ',', 'they', "don't", 'say', '.']

    Raises:
        ConfigError: Another `at`.
    """

    at: SplitAt = "punctuation"
    whole: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    beginnings: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at not in get_args(SplitAt):
            raise ConfigError(
                f"word_splitting: at: got {self.at!r}, expected {', '.join(get_args(SplitAt))}"
            )

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the start and the end of each word, in characters."""
        letters = text.translate(_LETTERS)
        if self.at != "punctuation":
            word = r"\S+" if self.at == "blanks" else rf"\S{_JOINED}*"
            return [match.span() for match in re.finditer(word, letters)]
        found = (match.span() for match in self._pattern.finditer(letters))
        return list(chain(*(self._parts(text, *span) for span in found)))

    def words(self, text: str) -> list[str]:
        return [text[start:end] for start, end in self.spans(text)]

    @classmethod
    def learnt(
        cls,
        sentences: Sequence[Sequence[str]],
        at: SplitAt | None = None,
        apart: Iterable[str] = (),
    ) -> "WordSplitting":
        """Find out how the words of some sentences have been split.

        Args:
            sentences: The words of each.
            at: Where they end; None to find that out too.
            apart: Marks at which words are known to end within them too.
        """
        counts = Counter(chain(*sentences))
        at = at or _where_split(counts)
        if at != "punctuation":
            return cls(at=at)
        neighbours = Counter(chain(*map(pairwise, sentences)))
        rule = cls(
            leading=_leading(counts, neighbours),
            beginnings=_frequent(counts, _BEGINNING, _beginnings_of),
            endings=_frequent(counts, _ENDING, _endings_of),
            apart=tuple(sorted({*apart, *_apart(counts)})),
        )
        whole, shapes = _unsplit(sentences, counts, rule)
        return replace(rule, whole=whole, shapes=shapes)

    @classmethod
    def from_published(cls, published: object) -> "WordSplitting | None":
        """Read what a config.json says under `word_splitting`; None where it says nothing.

        Raises:
            ConfigError: Something that is not understood.
        """
        if published is None:
            return None
        names = [each.name for each in fields(cls)]
        if not isinstance(published, dict) or not all(
            key in names and isinstance(value, str) for key, value in published.items()
        ):
            raise ConfigError(f"word_splitting: expected texts of the names {', '.join(names)}")
        at: Any = published.get("at", "punctuation")
        return cls(at=at, **{key: tuple(published.get(key, "").split()) for key in names[1:]})

    def published(self) -> Mapping[str, str]:
        """Return what config.json says under `word_splitting`, with lists as words with blanks."""
        lists = {each.name: " ".join(getattr(self, each.name)) for each in fields(self)[1:]}
        return {"at": self.at, **{name: words for name, words in lists.items() if words}}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        never = re.escape("".join(self.apart))
        mark = rf"\.?[^\w\s.{_ANYWHERE_APART}{never}]|\.|{_BETWEEN_DIGITS}"
        leading = f"[{re.escape(''.join(self.leading))}]?" if self.leading else ""
        usual = rf"{leading}{_LETTER}+(?:(?:{mark}){_LETTER}+)*"
        whole = _any_of(word.translate(_LETTERS) for word in self.whole)
        shapes = "|".join(map(_pattern_of_shape, sorted(self.shapes, key=len, reverse=True)))
        return re.compile(
            rf"{whole}|{shapes or _NOTHING}|{_ADDRESS}|{_ABBREVIATION}{_ENDED}|{usual}|{_FLAG}"
            rf"|[^\w\s](?:{_JOINED}[{_EMOJI}]?)*|[{_NO_BLANKS}]{_JOINED}*"
        )

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset((*self.whole, *self.shapes))

    def _parts(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A word, with what begins and ends it as words of their own."""
        word = text[start:end]
        if self._whole.isdisjoint((word, _shape(word))):
            for part in _longest_first(self.beginnings, _folded(word).startswith):
                if len(part) < len(word):
                    yield start, start + len(part)
                    start += len(part)
            for part in _longest_first(self.endings, _folded(word).endswith):
                if end - len(part) > start:
                    yield start, end - len(part)
                    start = end - len(part)
        yield start, end


class _Letters(dict[int, str | int]):
    """Each character as itself, but what joins or is written upon one as a letter."""

    def __missing__(self, code: int) -> str | int:
        is_joined = code in (0x200C, 0x200D, 0xAD) or 0x1F3FB <= code <= 0x1F3FF
        is_joined = is_joined or unicodedata.category(chr(code)).startswith("M")
        self[code] = _JOINED if is_joined else code
        return self[code]


_LETTERS = _Letters()
_APOSTROPHES = str.maketrans("\u2019\u02bc\uff07", "'''")
_ANYWHERE_APART = re.escape(_NEVER_WITHIN).replace(r"\-", "-") + _EMOJI
_NOTHING = "(?!)"
_NOT_LEADING = ".'\u2018\u2019`\"\u201c\u201e\u00ab"


def _any_of(words: Iterable[str]) -> str:
    """A pattern of words that are not to be split, by their first letter, the longest first."""
    rests: dict[str, list[str]] = {}
    for word in sorted(words, key=len, reverse=True):
        rests.setdefault(word[0], []).append(re.escape(word[1:]) + _ended(word))
    groups = (f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())
    return "|".join(groups) or _NOTHING


def _ended(word: str) -> str:
    """What follows a word that is not split, as a pattern."""
    if re.fullmatch(r"0+\.", word):
        return _ENDED + r"(?!\W*\Z)"  # the period of a sentence, unless the text goes on
    if re.search(rf"[{_NO_BLANKS}]{_JOINED}*$", word) or unicodedata.category(word[-1]) == "Sc":
        return ""
    return _ENDED if re.search(r"\w", word) else f"(?!{re.escape(word[-1])})"


def _shape(word: str) -> str:
    """A word whose digits are 0, at most three of them, or of equal marks, beside each other."""
    if word.isalpha():
        return word
    return re.sub(r"0{4,}", "000", re.sub(r"\d", "0", re.sub(r"([^\w\s])\1{3,}", r"\1\1\1", word)))


def _pattern_of_shape(shape: str) -> str:
    pattern = re.sub(r"(\\?[^\w\s\\])\1\1", r"\1{3,}", re.escape(shape.translate(_LETTERS)))
    return pattern.replace("000", r"\d{3,}").replace("0", r"\d") + _ended(shape)


def _folded(word: str) -> str:
    return word.translate(_APOSTROPHES).lower()


def _longest_first(parts: Sequence[str], fits: Any) -> list[str]:
    """The longest part that fits, if one does."""
    return sorted(filter(fits, map(_folded, parts)), key=len)[-1:]


def _where_split(counts: Counter[str]) -> SplitAt:
    """Whether words are characters, or marks stand at their ends more often than alone."""
    is_letter = re.compile(f"[{_NO_BLANKS}]").fullmatch
    letters = sum(count for word, count in counts.items() if is_letter(word))
    longer = sum(count for word, count in counts.items() if len(word) > 1)
    if letters > 100 * longer:
        return "characters"
    attached = sum(count for word, count in counts.items() if _ATTACHED.fullmatch(word))
    alone = sum(count for word, count in counts.items() if _ALONE.fullmatch(word))
    return "blanks" if attached > alone else "punctuation"


def _frequent(
    counts: Counter[str], pattern: re.Pattern[str], parts_of: Callable[[str], Iterable[str]]
) -> tuple[str, ...]:
    """The words of a pattern that occur more than once, and more often than at a longer word."""
    split, unsplit = Counter[str](), Counter[str]()
    for word, count in counts.items():
        if pattern.fullmatch(folded := _folded(word)):
            split[folded] += count
        for part in parts_of(folded):
            unsplit[part] += count
    return tuple(word for word, count in split.most_common() if count > max(1, unsplit[word]))


def _beginnings_of(word: str) -> Iterable[str]:
    return (word[: place + 1] for place, mark in enumerate(word[:-1]) if mark == "'")


def _endings_of(word: str) -> Iterable[str]:
    places = (place for place in range(1, len(word)) if word[place] in "'-")
    return chain((word[place:] for place in places), ["n't"] if word[1:].endswith("n't") else [])


def _leading(counts: Counter[str], neighbours: Counter[tuple[str, str]]) -> tuple[str, ...]:
    """Marks that more often begin a word than stand alone before one; periods, quotes aside."""
    together, apart, words = Counter[str](), Counter[str](), Counter[str]()
    for word, count in counts.items():
        if re.match(r"[^\w\s]\w", word) and word[0] not in _NOT_LEADING:
            together[word[0]] += count
            words[word[0]] += 1
    for (first, second), count in neighbours.items():
        if first in together and second[:1].isalnum():
            apart[first] += count
    return tuple(
        sorted(mark for mark in together if together[mark] > apart[mark] and words[mark] >= _FEW)
    )


def _apart(counts: Counter[str]) -> tuple[str, ...]:
    """Marks that often stand alone and rarely within a word; periods and apostrophes aside."""
    within = Counter[str]()
    for word, count in counts.items():
        if not _LINK.search(word):
            within.update(dict.fromkeys(_WITHIN.findall(word), count))
    return tuple(
        sorted(
            word
            for word, count in counts.items()
            if len(word) == 1
            and not re.match(rf"[\w.'\u2019{_ANYWHERE_APART}]", word)
            and count >= max(_ENOUGH, _RARELY * within[word])
        )
    )


def _unsplit(
    sentences: Iterable[Sequence[str]], counts: Counter[str], rule: WordSplitting
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that a rule would split and the data mostly do not, and shapes of such words."""
    whole = Counter(
        {
            word: count
            for word, count in counts.items()
            if word.split() == [word] and rule.words(word) != [word]
        }
    )
    shapes = Counter[str]()
    for word, count in whole.items():
        if _HAS_SHAPE.search(word):
            shapes[_shape(word)] += count
    parts = Counter(
        each
        for sentence in sentences
        for size in (2, 3)
        for neighbours in zip(*(sentence[start:] for start in range(size)), strict=False)
        for each in _with_shape("".join(neighbours))
        if (each in whole or each in shapes) and each not in neighbours
    )
    usual = [shape for shape, count in shapes.most_common() if count > max(1, parts[shape])]
    words = [word for word, count in whole.most_common() if count > parts[word]]
    words = [word for word in words if _shape(word) not in usual[:_MAX_SHAPES]]
    initials = [word for word in whole if _INITIAL.fullmatch(word)]
    if sum(whole[word] - parts[word] for word in initials) > 0:
        words += [word for letter in ascii_uppercase if (word := f"{letter}.") not in words]
    return tuple(words[:_MAX_WHOLE]), tuple(usual[:_MAX_SHAPES])


def _with_shape(word: str) -> tuple[str, ...]:
    return (word, _shape(word)) if _HAS_SHAPE.search(word) else (word,)
