"""`modernbert tokenizer`: train one, derive ModernBERT's from OLMo's, or extend one."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.options import Corpus, argument, example, takes_revision, takes_settings
from modernbert.cli.terminal import Meter, counted, short_count, tell
from modernbert.data.settings import VocabularySettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.data.documents import Document
    from modernbert.tokenizer.tokenizer import Tokenizer

app = typer.Typer(
    help="Train, derive or extend a tokenizer.",
    no_args_is_help=True,
    epilog=example("tokenizer train corpus tokenizer"),
)

TokenizerOutput = Annotated[Path, argument("OUT", "The folder to write the tokenizer to.")]

_DOCUMENTS_BETWEEN_UPDATES = 64
_VOCABULARY = VocabularySettings()


@app.command(epilog=example("tokenizer train corpus tokenizer --vocab-size 8192"))
@takes_settings
def train(
    corpus: Corpus,
    output: TokenizerOutput,
    settings: VocabularySettings = _VOCABULARY,
) -> None:
    """Train a tokenizer on a corpus, with ModernBERT's special tokens."""
    tokenizer = train_on(corpus, settings.vocab_size, text_field=settings.text_field)
    tokenizer.save_pretrained(output)
    if tokenizer.vocab_size < settings.vocab_size:
        tell(f"the corpus is too small for a vocabulary of {settings.vocab_size:,} entries")
    tell(f"{output}: a tokenizer of {tokenizer.vocab_size:,} entries")


def train_on(corpus: Sequence[Path], vocab_size: int, *, text_field: str = "text") -> "Tokenizer":
    """Train a tokenizer on files and folders, with the progress on stderr."""
    from modernbert.data.documents import DocumentReader
    from modernbert.tokenizer.train import train as learn

    reader = DocumentReader(corpus, text_field=text_field)
    try:
        with Meter("reading") as meter:
            tokenizer = learn(_texts(reader, meter), vocab_size=vocab_size)
    except InputError as error:
        raise InputError(f"{error}; {reader.skipped}".removesuffix("; ")) from None
    if str(reader.skipped):
        tell(str(reader.skipped))
    return tokenizer


@app.command(epilog=example("tokenizer derive olmo.json tokenizer"))
def derive(
    olmo_json: Annotated[
        Path,
        argument(
            "OLMO_TOKENIZER.json",
            "The file allenai_gpt-neox-olmo-dolma-v1_5.json, as OLMo published it.",
        ),
    ],
    output: TokenizerOutput,
) -> None:
    """Derive ModernBERT's own tokenizer from OLMo's."""
    from modernbert.tokenizer.train import derive as derive_tokenizer

    tokenizer = derive_tokenizer(olmo_json)
    tokenizer.save_pretrained(output)
    tell(f"{output}: ModernBERT's tokenizer of {tokenizer.vocab_size:,} entries")


def extend(
    tokenizer: Annotated[str, argument("MODEL", "Folder or hub id of a model or a tokenizer.")],
    output: TokenizerOutput,
    token: Annotated[
        list[str], typer.Option(help="A token to add; may be repeated.", show_default=False)
    ],
) -> None:
    """Add tokens in the unused slots of a vocabulary.

    The vocabulary keeps its size, so the model needs no change. Pretrain it further with the new
    tokenizer to learn the new tokens.
    """
    from modernbert.tokenizer.tokenizer import Tokenizer
    from modernbert.tokenizer.train import extend as name_slots

    extended = name_slots(Tokenizer.from_pretrained(tokenizer), token)
    extended.save_pretrained(output)
    ids = ", ".join(f"{each} {extended.token_to_id(each)}" for each in token)
    tell(f"{output}: {counted(len(token), 'new token')}: {ids}")


app.command(epilog=example("tokenizer extend tokenizer extended --token [CODE]"))(
    takes_revision(extend, "tokenizer")
)


def _texts(documents: Iterable["Document"], meter: Meter) -> Iterator[str]:
    """Yield the texts of documents and show how many were read."""
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
