"""Bodies of requests: read within limits, held in bounded memory, decoded off the loop."""

import asyncio
import re
from typing import Any, Self

import msgspec
from starlette.requests import Request

from modernbert.serving.answers import Refusal, invalid, overloaded, too_large, too_many_tokens
from modernbert.serving.settings import ServingSettings


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
        """The bytes that are held."""
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
