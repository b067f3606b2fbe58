"""Where the words of a text begin and end, as in the data that a tagger has learnt from."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Literal, get_args

from modernbert.errors import ConfigError

SplitAt = Literal["punctuation", "blanks"]

_MAX_WHOLE = 5_000  # words of a language without blanks; others have hundreds
_ENOUGH = 20  # of a mark that stands alone, before it counts that it never stands within a word

# Scripts that put no blanks between words: each character is a word, unless data say otherwise.
_NO_BLANKS = (
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = f"[^\\W{_NO_BLANKS}]"
# Marks that stand in no word, whatever is beside them.
_NEVER_WITHIN = '\u2014\u2026"\u201c\u201d\u00ab\u00bb()[]{}<>;!?|,:'
_BETWEEN_DIGITS = r"(?<=\d)[,:](?=\d)"
_ADDRESS = rf"{_LETTER}+://\S*[\w/]"
_ABBREVIATION = r"(?:[^\W\d_]\.){2,}"
# What follows a word that has ended: neither a letter nor a mark within the word.
_ENDED = r"(?!\w|[^\w\s]\w)"

_ENDING = re.compile(r"['\u2019]\w{1,3}|n['\u2019]t", re.IGNORECASE)
_BEGINNING = re.compile(r"[^\W\d_]{1,5}['\u2019]")
_ATTACHED = re.compile(r"[(\"].*\w|.*\w.*[,;:!?)\"]")
_ALONE = re.compile(r"[(),;:!?\"]")
_WITHIN = re.compile(r"(?<=\w)[^\w\s](?=\w)")


@dataclass(frozen=True, kw_only=True)
class WordSplitting:
    """How texts are split into words.

    Attributes:
        at: Words end at blanks alone, or at punctuation too: then a word goes on over a mark
            within it, as in "don't" and "Ben-Elissar", and marks at its ends are words of their
            own, except for the periods of abbreviations such as "U.S.".
        whole: Words that are not split although they have marks at their ends, such as "Inc.".
        beginnings: Beginnings of words that are words of their own, such as "l'" in "l'Europe".
        endings: Endings of words that are words of their own, such as "'s" in "Europe's".
        apart: Marks at which words end within them too, such as "-".

    >>> splitting = WordSplitting(endings=("'s",))
    >>> text = "Ben-Elissar's U.S. visit, they don't say."
    >>> [text[start:end] for start, end in splitting.spans(text)]
    ['Ben-Elissar', "'s", 'U.S.', 'visit', ',', 'they', "don't", 'say', '.']

    Raises:
        ConfigError: Another `at`.
    """

    at: SplitAt = "punctuation"
    whole: tuple[str, ...] = ()
    beginnings: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at not in get_args(SplitAt):
            raise ConfigError(f"word_splitting: at: got {self.at!r}, expected punctuation, blanks")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The start and the end of each word, in characters."""
        letters = text.translate(_LETTERS)
        if self.at == "blanks":
            return [match.span() for match in re.finditer(r"\S+", letters)]
        found = (match.span() for match in self._pattern.finditer(letters))
        return list(chain(*(self._parts(text, *span) for span in found)))

    def words(self, text: str) -> list[str]:
        """The words themselves."""
        return [text[start:end] for start, end in self.spans(text)]

    @classmethod
    def learnt(
        cls, sentences: Sequence[Sequence[str]], at: SplitAt | None = None
    ) -> "WordSplitting":
        """Find out how the words of some sentences have been split.

        Args:
            sentences: The words of each.
            at: Where they end; None to find that out too.
        """
        counts = Counter(chain(*sentences))
        at = at or ("blanks" if _is_split_at_blanks(counts) else "punctuation")
        if at == "blanks":
            return cls(at=at)
        rule: dict[str, Any] = {
            "beginnings": _frequent(counts, _BEGINNING),
            "endings": _frequent(counts, _ENDING),
            "apart": _apart(counts),
        }
        splitting = cls(**rule)
        split = {
            word for word in counts if word.split() == [word] and splitting.words(word) != [word]
        }
        pairs = Counter(
            first + second
            for sentence in sentences
            for first, second in pairwise(sentence)
            if first + second in split
        )
        whole = [
            word for word, count in counts.most_common() if word in split and count > pairs[word]
        ]
        return cls(**rule, whole=tuple(whole[:_MAX_WHOLE]))

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
        """What a config.json says under `word_splitting`: lists as words with blanks between."""
        lists = {each.name: " ".join(getattr(self, each.name)) for each in fields(self)[1:]}
        return {"at": self.at, **{name: words for name, words in lists.items() if words}}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        never = re.escape("".join((_NEVER_WITHIN, *self.apart)))
        mark = rf"\.?[^\w\s.{never}]|\.|{_BETWEEN_DIGITS}"
        usual = rf"{_LETTER}+(?:(?:{mark}){_LETTER}+)*"
        whole = _any_of(word.translate(_LETTERS) for word in self.whole)
        return re.compile(
            rf"{whole}|{_ADDRESS}|{_ABBREVIATION}{_ENDED}|{usual}|[^\w\s]|[{_NO_BLANKS}]"
        )

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(self.whole)

    def _parts(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A word, with what begins and ends it as words of their own."""
        word = text[start:end]
        if word not in self._whole:
            for part in _longest_first(self.beginnings, word.startswith):
                yield start, start + len(part)
                start += len(part)
            for part in _longest_first(self.endings, word.endswith):
                if end - len(part) > start:
                    yield start, end - len(part)
                    start = end - len(part)
        yield start, end


class _Letters(dict[int, str | int]):
    """Each character as itself, but marks on letters as letters, which `re` takes for none."""

    def __missing__(self, code: int) -> str | int:
        category = unicodedata.category(chr(code))
        self[code] = "a" if category.startswith("M") or code in (0x200C, 0x200D, 0xAD) else code
        return self[code]


_LETTERS = _Letters()


def _any_of(words: Iterable[str]) -> str:
    """A pattern of words that are not to be split, by their first letter, the longest first."""
    rests: dict[str, list[str]] = {}
    for word in sorted(words, key=len, reverse=True):
        may_go_on = re.search(f"[{_NO_BLANKS}]$", word) or unicodedata.category(word[-1]) == "Sc"
        ended = "" if may_go_on else _ENDED
        rests.setdefault(word[0], []).append(re.escape(word[1:]) + ended)
    groups = (f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())
    return "|".join(groups) or "(?!)"


def _longest_first(parts: Sequence[str], fits: Any) -> list[str]:
    """The longest part that fits, if one does."""
    return sorted(filter(fits, parts), key=len)[-1:]


def _is_split_at_blanks(counts: Counter[str]) -> bool:
    """Whether marks stand at the ends of words more often than alone."""
    attached = sum(count for word, count in counts.items() if _ATTACHED.fullmatch(word))
    return attached > sum(count for word, count in counts.items() if _ALONE.fullmatch(word))


def _frequent(counts: Counter[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The words of a pattern that occur more than once."""
    common = (word for word, count in counts.most_common() if count > 1)
    return tuple(filter(pattern.fullmatch, common))


def _apart(counts: Counter[str]) -> tuple[str, ...]:
    """Marks that often stand alone and never within a word; periods and apostrophes aside."""
    within = set(chain(*map(_WITHIN.findall, counts)))
    return tuple(
        sorted(
            word
            for word, count in counts.items()
            if len(word) == 1
            and not (word.isalnum() or word in within or word in ".'\u2019_")
            and count >= _ENOUGH
        )
    )
