"""`modernbert tokenizer`: train one's own, or derive ModernBERT's from OLMo's."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.formatting import counted, short_count
from modernbert.cli.options import Corpus, TextField
from modernbert.cli.terminal import Meter, tell

if TYPE_CHECKING:
    from modernbert.data.documents import Document
    from modernbert.tokenizer.tokenizer import Tokenizer

app = typer.Typer(help="Make a tokenizer.", no_args_is_help=True)

Output = Annotated[
    Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)
]

_DOCUMENTS_BETWEEN_UPDATES = 64


@app.command()
def train(
    corpus: Corpus,
    output: Output,
    vocab_size: Annotated[
        int, typer.Option(help="Entries in all, rounded up to a multiple of 64.")
    ] = 50_368,
    text_field: TextField = "text",
) -> None:
    """Learn a tokenizer from a corpus, with ModernBERT's pipeline and special tokens."""
    tokenizer = train_on(corpus, vocab_size, text_field=text_field)
    tokenizer.save_pretrained(output)
    if tokenizer.vocab_size < vocab_size:
        tell(f"the corpus is too small to learn {vocab_size:,} entries from")
    tell(f"{output}: a tokenizer of {tokenizer.vocab_size:,} entries")


def train_on(corpus: Sequence[Path], vocab_size: int, *, text_field: str = "text") -> "Tokenizer":
    """Learn a tokenizer from files and folders, with the progress on stderr."""
    from modernbert.data.documents import DocumentReader
    from modernbert.tokenizer.train import train as learn

    reader = DocumentReader(corpus, text_field=text_field)
    with Meter("reading") as meter:
        tokenizer = learn(_texts(reader, meter), vocab_size=vocab_size)
    if str(reader.skipped):
        tell(str(reader.skipped))
    return tokenizer


@app.command()
def derive(
    olmo_json: Annotated[
        Path,
        typer.Argument(
            metavar="OLMO_TOKENIZER.json",
            help="OLMo's published allenai_gpt-neox-olmo-dolma-v1_5.json.",
            show_default=False,
        ),
    ],
    output: Output,
) -> None:
    """Make ModernBERT's own tokenizer from the published one of OLMo."""
    from modernbert.tokenizer.derive import derive as derive_tokenizer

    tokenizer = derive_tokenizer(olmo_json)
    tokenizer.save_pretrained(output)
    tell(f"{output}: ModernBERT's tokenizer of {tokenizer.vocab_size:,} entries")


@app.command()
def extend(
    tokenizer: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Folder or hub id of a model or tokenizer.", show_default=False
        ),
    ],
    output: Output,
    token: Annotated[
        list[str], typer.Option(help="A new token; may be given again.", show_default=False)
    ],
) -> None:
    """Give names to free slots of a vocabulary, which keeps its size.

    A pretraining that starts from the model with this tokenizer learns the new tokens.
    """
    from modernbert.tokenizer.extend import extend as name_slots
    from modernbert.tokenizer.tokenizer import Tokenizer

    extended = name_slots(Tokenizer.from_pretrained(tokenizer), token)
    extended.save_pretrained(output)
    ids = ", ".join(f"{each} {extended.token_to_id(each)}" for each in token)
    tell(f"{output}: {counted(len(token), 'new token')}: {ids}")


def _texts(documents: Iterable["Document"], meter: Meter) -> Iterator[str]:
    """The texts; when they are all read, the meter says what comes then."""
    characters = 0
    number = 0
    for number, document in enumerate(documents, start=1):
        characters += len(document.text)
        if number % _DOCUMENTS_BETWEEN_UPDATES == 0:
            meter.update(number, None, _amount(number, characters))
        yield document.text
    meter.restart("learning")
    meter.update(number, None, _amount(number, characters))


def _amount(documents: int, characters: int) -> str:
    return f"{counted(documents, 'document')}, {short_count(characters)} characters"
