"""What a user says of the files of a corpus, and what its shards depend on."""

import codecs
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval, MinLen

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class FileSettings(Settings):
    """How the bytes of a file are understood.

    Raises:
        SettingsError: Python does not know the encoding.
    """

    encoding: Annotated[
        str | None,
        Doc(
            "The encoding of text, such as latin-1.",
            default="UTF-8, or UTF-16 with a byte order mark",
        ),
    ] = None
    header: Annotated[
        bool,
        Doc(
            "Whether the first row of a CSV or TSV file names the columns.",
            flags=("--header/--no-header",),
        ),
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise SettingsError(
                    f"encoding: got {self.encoding!r}, which Python does not know; expected a name "
                    "such as latin-1 or cp1252"
                ) from None


@dataclass(frozen=True, kw_only=True)
class InputSettings(FileSettings):
    """Which texts of a file to read.

    Raises:
        SettingsError: As `FileSettings`.
    """

    text_field: Annotated[
        str | None,
        Doc("The field or column of the texts.", default="found by usual names"),
    ] = None
    id_field: Annotated[
        str | None, Doc("The field or column of the ids.", default="found by usual names")
    ] = None
    strict: Annotated[bool, Doc("Stop at the first bad row instead of skipping it.")] = False


@dataclass(frozen=True, kw_only=True)
class PairInputSettings(InputSettings):
    """Which texts, or pairs of texts, to read.

    Raises:
        SettingsError: As `FileSettings`.
    """

    text_pair: Annotated[
        str | None,
        Doc("The field or column of the second texts.", default="found by usual names"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class QuestionInputSettings(InputSettings):
    """Which questions to read, and the text beside each.

    Raises:
        SettingsError: As `FileSettings`.
    """

    text_field: Annotated[str, Doc("The field or column of the questions.")] = "question"
    text_pair: Annotated[str, Doc("The field or column of the texts with the answers.")] = "context"


@dataclass(frozen=True, kw_only=True)
class ShareSettings(Settings):
    """One of several tasks that share a job, on one machine or many.

    Raises:
        SettingsError: There is no such task.
    """

    task: Annotated[
        int | None,
        Ge(0),
        Doc("Compute this share of the input, from 0.", default="with --tasks, join the shares"),
    ] = None
    tasks: Annotated[
        int | None, Ge(1), Doc("The number of shares that the input is divided into.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None and (self.tasks is None or self.task >= self.tasks):
            raise SettingsError(
                f"task: got {self.task} of {self.tasks or 'unknown'} tasks; expected --tasks, and "
                "a number from 0 to below it"
            )

    @property
    def joins(self) -> bool:
        """Whether shares that were computed are to be joined."""
        return self.tasks is not None and self.task is None


DEFAULT_SHARD_TOKENS = 250_000_000


@dataclass(frozen=True, kw_only=True)
class VocabularySettings(Settings):
    """What a tokenizer is trained on, and how large its vocabulary becomes."""

    vocab_size: Annotated[int, Doc("Size of the vocabulary, rounded up to a multiple of 64.")] = (
        50_368
    )
    text_field: Annotated[
        str, MinLen(1), Doc("The field or column that holds the text of a document.")
    ] = "text"


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(FileSettings):
    """Settings of `prepare`.

    Raises:
        SettingsError: A value is out of its range.
    """

    held_out: Annotated[
        float,
        Interval(ge=0, lt=1),
        Doc("The fraction of documents to keep apart for evaluation."),
    ] = 0.0
    text_field: Annotated[
        str, MinLen(1), Doc("The field or column that holds the text of a document.")
    ] = "text"
    strict: Annotated[
        bool, Doc("Stop at the first file or record that cannot be read, instead of skipping it.")
    ] = False
    follow_links: Annotated[
        bool, Doc("Follow links to folders, and links to files outside of a corpus folder.")
    ] = False
    seed: Annotated[int, Ge(0), Doc("The seed of the shuffle.")] = 0
    shard_tokens: Annotated[
        int, Ge(1), Doc("The most tokens in a shard, unless it holds a single document.")
    ] = DEFAULT_SHARD_TOKENS
