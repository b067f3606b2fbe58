"""Answers as JSON, encoded in pieces, so that a large one does not hold up or fill the server.

A `Refusal` is why a request has no result, with the status for HTTP.
"""

import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from starlette.responses import Response
from starlette.types import Send

from modernbert.serving import schemas

ErrorType = Literal[
    "Backend",
    "Empty",
    "Forbidden",
    "NotFound",
    "Overloaded",
    "Tokenizer",
    "Unauthorized",
    "Unhealthy",
    "Validation",
]


_MAX_MESSAGE = 1000

JSON = "application/json"
_PIECE_VALUES = 8192
_PIECE_BYTES = 65_536
_CHARACTERS_A_VALUE = 16
_VALUES_OF_AN_ITEM = 5
_HEADERS_OF_JSON = ((b"content-type", JSON.encode()),)


OffLoop = Callable[..., Coroutine[Any, Any, Any]]


class Refusal(Exception):
    """Raised when a request is answered with an error instead of a result.

    Args:
        status: The HTTP status.
        error_type: The type of the error, as text-embeddings-inference names it.
        retry_after: Seconds after which the client may try again.
    """

    def __init__(
        self, status: int, error_type: ErrorType, message: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        # What a client sent may be in the message, and need not be sent back whole.
        is_long = len(message) > _MAX_MESSAGE
        self.message = message[:_MAX_MESSAGE] + " ..." if is_long else message
        self.status, self.error_type = status, error_type
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))


def invalid(message: str) -> Refusal:
    """Refuse a request with an invalid value."""
    return Refusal(400, "Validation", message)


def empty(name: str) -> Refusal:
    """Refuse a request without any input."""
    return Refusal(400, "Empty", f"{name}: is empty; send at least one")


def too_large(message: str) -> Refusal:
    """Refuse a request that exceeds a limit."""
    return Refusal(413, "Validation", message)


def too_many_tokens(most: int) -> Refusal:
    """Refuse a request with too many tokens."""
    return too_large(f"more than {most:,} tokens, which a request may have; send several requests")


def unsupported(model: str, kind: str, route: str) -> Refusal:
    """Refuse a route for which the model has no head."""
    return Refusal(424, "Backend", f"{route}: the model {model} has no head for it ({kind})")


def overloaded(message: str, retry_after: float) -> Refusal:
    """Refuse a request because too much work is waiting."""
    return Refusal(429, "Overloaded", message, retry_after=retry_after)


def unavailable(message: str, retry_after: float) -> Refusal:
    """Refuse a request for now: it took too long, memory is short, or the server shuts down."""
    return Refusal(503, "Unhealthy", message, retry_after=retry_after)


class Lazy:
    """A list whose items are made only when they are encoded, which saves memory until then.

    Args:
        number: The number of items.
        item: Makes the item at an index.
    """

    def __init__(self, number: int, item: Callable[[int], Any]) -> None:
        self.number, self.item = number, item

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Any]:
        return map(self.item, range(self.number))


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with a small value."""
    return Response(msgspec.json.encode(value), status, media_type=JSON, headers=headers)


def error_response(refusal: Refusal, *, is_openai: bool = False) -> Response:
    """Return a response that says why there is no result."""
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    body: Any = schemas.ErrorResponse(refusal.message, refusal.error_type)
    if is_openai:
        body = schemas.OpenAIErrorResponse(refusal.message, refusal.status, refusal.error_type)
    return json_response(body, refusal.status, headers)


async def send_answer(
    send: Send, value: Any, headers: Mapping[str, str], off_loop: OffLoop
) -> None:
    """Send a result, and return when the client's side has taken all of it.

    A result of more than one piece is sent as it is encoded, without a length in its head.

    Args:
        send: Sends ASGI messages; it waits until the previous message has been taken.
        value: The result: structs, lists, numbers, texts and NumPy arrays.
        headers: More headers of the response.
        off_loop: Runs a function on another thread.
    """
    pieces = json_pieces(value)
    first, second = await off_loop(lambda: (next(pieces), next(pieces, None)))
    head = [*_HEADERS_OF_JSON, *((k.encode(), v.encode()) for k, v in headers.items())]
    if second is None:
        head.append((b"content-length", str(len(first)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    while second is not None:
        await send({"type": "http.response.body", "body": second, "more_body": True})
        second = await off_loop(next, pieces, None)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def json_pieces(value: Any) -> Iterator[bytes]:
    """Encode a value, a piece of about 64 KiB at a time.

    >>> b"".join(json_pieces([np.zeros((2, 2), "f4"), None]))
    b'[[[0.0,0.0],[0.0,0.0]],null]'
    """
    piece = bytearray()
    for part in _parts(value):
        piece += part
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _parts(value: Any) -> Iterator[bytes]:
    """Encode a value in parts, none of which keeps the interpreter for long."""
    if _num_values(value) <= _PIECE_VALUES:
        yield _encode(value)
    elif isinstance(value, msgspec.Struct):
        opening = b"{"
        for field in msgspec.structs.fields(value):
            content = getattr(value, field.name)
            if content is None and value.__struct_config__.omit_defaults:
                continue
            yield opening + _encode(field.encode_name) + b":"
            yield from _parts(content)
            opening = b","
        yield b"}"
    elif isinstance(value, list | tuple | Lazy | np.ndarray):
        yield from _joined(_groups(value))
    else:
        yield _encode(value)


def _joined(groups: Iterable[Iterator[bytes]]) -> Iterator[bytes]:
    opening = b"["
    for group in groups:
        yield opening
        yield from group
        opening = b","
    yield b"]"


def _groups(values: Any) -> Iterator[Iterator[bytes]]:
    """Neighbouring values of a list, as many as make up a piece, without brackets."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        for start in range(0, len(values), _PIECE_VALUES):
            yield iter([_encode(values[start : start + _PIECE_VALUES])[1:-1]])
        return
    group: list[Any] = []
    room = _PIECE_VALUES
    for value in values:
        size = _num_values(value)
        if group and size > room:
            yield iter([_encode(group)[1:-1]])
            group, room = [], _PIECE_VALUES
        if size > _PIECE_VALUES:
            yield _parts(value)
        else:
            group.append(value)
            room -= size
    if group:
        yield iter([_encode(group)[1:-1]])


def _num_values(value: Any) -> int:
    """How large a value is, counted in numbers; what is more than a piece is not counted out."""
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, Lazy):
        return _VALUES_OF_AN_ITEM * len(value)
    if isinstance(value, str):
        return 1 + len(value) // _CHARACTERS_A_VALUE
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in value.__struct_fields__]
    number = 1
    if isinstance(value, list | tuple):
        for each in value:
            number += _num_values(each)
            if number > _PIECE_VALUES:
                break
    return number


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Lazy):
        return list(value)
    assert isinstance(value, np.ndarray), f"no JSON of a {type(value).__name__}"
    return value.tolist()
