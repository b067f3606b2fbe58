"""From the body of a request to the sequences that a model reads.

Bodies are read within limits, held in bounded memory, and decoded off the loop.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from starlette.requests import Request

from modernbert.errors import InputError
from modernbert.inference.inputs import CutSide, EncodedText, Text, TextEncoder
from modernbert.serving.answers import (
    Refusal,
    empty,
    invalid,
    overloaded,
    too_large,
    too_many_tokens,
)
from modernbert.serving.settings import ServingSettings
from modernbert.tokenizer.tokenizer import Tokenizer

TextOrIds = str | list[int]


class HeldMemory:
    """Counts the bytes that all requests hold together, and knows the most that they may hold.

    Attributes:
        num_bytes: The bytes that are held now.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.num_bytes = 0


class Hold:
    """The bytes that one request holds, from its first byte until its answer has been taken."""

    def __init__(self, memory: HeldMemory) -> None:
        self._memory = memory
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Hold more bytes.

        Raises:
            Refusal: Too many are held already.
        """
        memory = self._memory
        if memory.num_bytes + num_bytes > memory.most:
            raise overloaded(
                f"bodies and answers hold {memory.num_bytes:,} of {memory.most:,} bytes, and "
                f"{num_bytes:,} more are too many now",
                retry_after=1,
            )
        memory.num_bytes += num_bytes
        self._num_bytes += num_bytes

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def shrink(self, num_bytes: int) -> None:
        """Release bytes until at most this many are held."""
        if (fewer := self._num_bytes - num_bytes) > 0:
            self._memory.num_bytes -= fewer
            self._num_bytes = num_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Release all bytes."""
        self._memory.num_bytes -= self._num_bytes
        self._num_bytes = 0


def num_bytes(value: Any) -> int:
    """Estimate the bytes of a computed result: those of its arrays and tensors."""
    if isinstance(value, tuple | list):
        return sum(map(num_bytes, value))
    return int(getattr(value, "nbytes", 0))


# Pairs and questions are one list or object for each input.
_LISTS_PER_INPUT = 4
_OTHER_LISTS = 64


async def read_body(request: Request, settings: ServingSettings, hold: Hold) -> bytes:
    """Read the body of a request; give up when it is too large or takes too long.

    Args:
        request: The request, whose head has arrived.
        settings: The largest body, and how long a client may take to send it.
        hold: Counts the bytes of the body.

    Raises:
        Refusal: Its content type is not JSON, it is too large or too late, or it contains more
            lists than a request may have inputs.
    """
    _require_json(request)
    most, body = settings.max_body_bytes, bytearray()
    refusal = too_large(f"body: larger than {most:,} bytes; send several requests")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and float(declared) > most:
        raise refusal
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                hold.add(len(chunk))
                body += chunk
                if len(body) > most:
                    raise refusal
    except TimeoutError:
        limit = f"{settings.body_seconds:g} seconds"
        raise Refusal(408, "Validation", f"body: was not complete after {limit}") from None
    _require_few_lists(body, _LISTS_PER_INPUT * settings.max_inputs + _OTHER_LISTS)
    return bytes(body)


def decode_body(
    body: bytes, kind: type[msgspec.Struct], settings: ServingSettings
) -> msgspec.Struct:
    """Decode a body as the type of its request.

    Raises:
        Refusal: It is not JSON, a field is wrong, or it asks for too much.
    """
    try:
        message = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(_with_field(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"body: not JSON in UTF-8: {error}") from None
    except RecursionError:
        raise invalid("body: nested too deeply") from None
    _require_few_inputs(message, settings)
    return message


def _require_few_inputs(
    message: msgspec.Struct, settings: ServingSettings, place: str = ""
) -> None:
    """Refuse lists of too many texts or token ids before anything is done with them."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, msgspec.Struct):
            _require_few_inputs(value, settings, f"{place}{name}.")
        if not isinstance(value, list) or not value:
            continue
        if isinstance(value[0], int):
            _require_few_ids(len(value), settings)
        elif len(value) > settings.max_inputs:
            raise too_large(
                f"{place}{name}: got {len(value)}, but a request may have {settings.max_inputs}; "
                "send several requests"
            )
        else:
            rows = (each for each in value if isinstance(each, list) and each)
            ids = sum(len(each) for each in rows if isinstance(each[0], int))
            _require_few_ids(ids, settings)


def _require_few_ids(number: int, settings: ServingSettings) -> None:
    if number > settings.max_request_tokens:
        raise too_many_tokens(settings.max_request_tokens)


def _require_json(request: Request) -> None:
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        said = f"content-encoding: got {coding}, expected none; send the body as it is"
        raise Refusal(415, "Validation", said)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise Refusal(
            415,
            "Validation",
            f"content-type: got {kind or 'none'}, expected application/json",
        )


def _require_few_lists(body: bytes | bytearray, most: int) -> None:
    """Refuse bodies that would be slow to decode: each list costs more than a long text.

    Brackets within texts do not count; texts are looked for only if there are many brackets.
    """
    if _num_brackets(body) <= most:
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if (number := _num_brackets(b"".join(unescaped.split(b'"')[::2]))) > most:
        raise too_large(
            f"body: {number:,} lists and objects, but a request may have {most:,}; "
            "send several requests"
        )


def _num_brackets(text: bytes | bytearray) -> int:
    return text.count(b"[") + text.count(b"{")


def _with_field(said: str) -> str:
    """Rewrite a message of msgspec so that it begins with the field.

    >>> _with_field("Expected `str`, got `int` - at `$.texts[1]`")
    'texts[1]: expected `str`, got `int`'
    >>> _with_field("Object missing required field `query`")
    'query: is missing'
    >>> _with_field("Object contains unknown field `text`")
    'text: no such field'
    """
    said, _, place = said.partition(" - at `$")
    field = place.rstrip("`").lstrip(".")
    for reason, words in (
        ("missing required", "is missing"),
        ("contains unknown", "no such field"),
    ):
        if found := re.search(rf"{reason} field `(.*)`", said, re.DOTALL):
            return f"{field}.{found[1]}: {words}" if field else f"{found[1]}: {words}"
    return f"{field or 'body'}: {said[:1].lower()}{said[1:]}"


@dataclass(frozen=True)
class Truncation:
    """What happens to a text that is too long.

    Attributes:
        allowed: Whether it is truncated; otherwise the request is refused.
        side: The side on which it is truncated.
    """

    allowed: bool
    side: CutSide = "right"


def as_inputs(inputs: str | list[str | int | list[int]], name: str) -> list[TextOrIds]:
    """Return texts and rows of token ids as a list; a single row of ids is one text.

    Raises:
        Refusal: There is no input, or a list contains both texts and ids.
    """
    if isinstance(inputs, str):
        return [inputs]
    ids = [item for item in inputs if isinstance(item, int)]
    if ids and len(ids) < len(inputs):
        raise invalid(f"{name}: expected texts, or token ids, but not both in one list")
    rows: list[TextOrIds] = [ids] if ids else [item for item in inputs if not isinstance(item, int)]
    if not rows:
        raise empty(name)
    for index, row in enumerate(rows):
        if not row and not isinstance(row, str):
            raise empty(f"{name}[{index}]")
    return rows


def as_pairs(inputs: str | list[str | list[str]], name: str) -> tuple[list[Text], bool]:
    """Return texts and pairs as a list, and whether the request gave a list.

    Raises:
        Refusal: There is no input, or an input has more than two texts.
    """
    if isinstance(inputs, str):
        return [inputs], False
    texts = [item for item in inputs if isinstance(item, str)]
    if texts and len(texts) == len(inputs) <= 2:
        return [_as_text(texts)], False
    if texts:
        raise invalid(f"{name}: expected a text, a pair of texts, or a list of lists of them")
    rows = [item for item in inputs if not isinstance(item, str)]
    if not rows:
        raise empty(name)
    for index, row in enumerate(rows):
        if not 1 <= len(row) <= 2:
            raise invalid(f"{name}[{index}]: got {len(row)} texts, expected one or two")
    return [_as_text(row) for row in rows], True


def _as_text(parts: list[str]) -> Text:
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def encode_ids_too(encoder: TextEncoder) -> Callable[[Sequence[TextOrIds]], list[EncodedText]]:
    """Return an encoder that accepts rows of token ids as well as texts.

    [CLS] and [SEP] around token ids are removed and added again, as around a text.
    """
    tokenizer = encoder.tokenizer

    def encode(inputs: Sequence[TextOrIds]) -> list[EncodedText]:
        encoded = iter(encoder([each for each in inputs if isinstance(each, str)]))
        prompt = tokenizer.encode(encoder.prompt, special_tokens=False) if encoder.prompt else []
        return [
            next(encoded)
            if isinstance(each, str)
            else encoder.framed([prompt + _bare_ids(tokenizer, each)])
            for each in inputs
        ]

    return encode


def _bare_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    if (highest := max(ids)) >= tokenizer.vocab_size:
        raise InputError(f"got the id {highest}, expected 0 to {tokenizer.vocab_size - 1}")
    return tokenizer.template.bare(ids)


def require_fit(encoded: Sequence[Any], truncation: Truncation, max_seqlen: int, name: str) -> None:
    """Refuse inputs that are too long, unless they may be truncated.

    Raises:
        Refusal: An input is too long.
    """
    for index, each in enumerate(encoded):
        if not truncation.allowed and getattr(each, "is_truncated", False):
            raise too_large(
                f"{name}[{index}]: longer than the {max_seqlen:,} tokens that the model reads; "
                "shorten it, or set truncate"
            )
