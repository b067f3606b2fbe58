"""Which columns hold texts: those that are asked for, or those of the usual names."""

from collections.abc import Sequence
from dataclasses import dataclass

from modernbert.data.rows.table import Table

# In the order of preference; compared without capitals.
PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXTS = ("text", "sentence", "content", "review", "document", "comment", "title", "query", "body")
IDS = ("id", "_id", "idx", "guid")
WORDS = ("tokens", "words", "tokenized_text", "text", "sentence", "data")


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """The columns of the texts, or of the pairs."""

    text: str
    text_pair: str | None = None

    @classmethod
    def find(
        cls, table: Table, text: str | None = None, text_pair: str | None = None
    ) -> "TextColumns":
        """Those that are asked for, or a usual pair, or one usual column.

        Raises:
            DocumentError: There are none.
        """
        if text is None and text_pair is None:
            for first, second in PAIRS:
                if (one := table.first_of([first])) and (other := table.first_of([second])):
                    return cls(text=one, text_pair=other)
        found = table.find(TEXTS, asked=text, option="--text")
        if text_pair is None:
            return cls(text=found)
        return cls(text=found, text_pair=table.find([], asked=text_pair, option="--text-pair"))

    @property
    def names(self) -> Sequence[str]:
        """One name, or two."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    def read(self, table: Table) -> list[str | tuple[str, str]]:
        """The texts of all rows, or the pairs.

        Raises:
            DocumentError: A row without a text.
        """
        for name in self.names:
            table.find([], asked=name, option="--text")
        columns = [table.texts(name) for name in self.names]
        if len(columns) == 1:
            return list(columns[0])
        return list(zip(*columns, strict=True))

    def __str__(self) -> str:
        return " and ".join(self.names)
