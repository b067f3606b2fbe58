"""What a user says of vectors and of the index that is written with them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class IndexSettings(Settings):
    """What `embed` puts into an .index."""

    kind: Annotated[
        Literal["float32", "float16", "int8", "binary"] | None,
        Doc(
            "Number format of an .index: float32, int8 or binary for one vector per text; float32, "
            "float16 or int8 for one per token.",
            default="float32; float16 for one vector per token",
        ),
    ] = None
    clusters: Annotated[
        int | None,
        Ge(1),
        Doc(
            "Find candidates in an .index of one vector per token by encodings of this many bytes "
            "per document, such as 1024, and compare only those exactly.",
            default="every document is compared",
        ),
    ] = None
    faiss: Annotated[bool, Doc("Write a FAISS index into the .index folder as well.")] = False
    texts: Annotated[bool, Doc("Keep the texts in an .index, for `search` to show.")] = True
    fields: Annotated[
        tuple[str, ...],
        Doc(
            "Keep this column in an .index too, for `search` to show; may be repeated.",
            flags=("--field",),
        ),
    ] = ()
    bm25: Annotated[
        str,
        Doc(
            "Index the words of the texts as well, by the rules of a language such as english, or "
            "as they are (none).",
            default="no words",
        ),
    ] = ""
    add: Annotated[
        bool,
        Doc(
            "Add the texts to an existing .index, with its options; a text with the id of an old "
            "one replaces it."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class VectorSettings(Settings):
    """Which vectors `embed` computes."""

    chunks: Annotated[
        Literal["tokens", "sentences"] | None,
        Doc(
            "Divide texts after a number of tokens or between sentences, and write a vector for "
            "each piece, computed from one pass over the whole text. The id of a piece is "
            "ID#char=START,END."
        ),
    ] = None
    chunk_tokens: Annotated[
        int | None,
        Ge(1),
        Doc("The most tokens of a piece; a longer sentence is a piece of its own.", default="256"),
    ] = None
    borders: Annotated[
        str | None,
        Doc(
            "Divide texts into the pieces that this column names instead: a list of [START, END], "
            "in characters of the text."
        ),
    ] = None
    pool_factor: Annotated[
        int | None,
        Ge(1),
        Doc(
            "Keep one vector for this many tokens of a document, by joining the most similar ones "
            "(one vector per token).",
            default="1; that of the index with --add",
        ),
    ] = None
    normalize: Annotated[bool, Doc("Scale each vector to length 1.")] = False
    truncate_dim: Annotated[
        int | None, Ge(1), Doc("Keep only the first N dimensions of each vector.")
    ] = None
    prompt: Annotated[str | None, Doc("A text to put before each text.")] = None
    prompt_name: Annotated[
        str | None,
        Doc("The name of one of the model's prompts.", default="that of documents, for an .index"),
    ] = None
