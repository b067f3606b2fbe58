"""What the shards of a corpus depend on, besides its documents and the tokenizer."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval, MinLen

from modernbert.data.rows.file_settings import FileSettings
from modernbert.settings import Doc

DEFAULT_SHARD_TOKENS = 250_000_000


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
    seed: Annotated[int, Ge(0), Doc("The seed of the shuffle.")] = 0
    shard_tokens: Annotated[
        int, Ge(1), Doc("The most tokens in a shard, unless it holds a single document.")
    ] = DEFAULT_SHARD_TOKENS
