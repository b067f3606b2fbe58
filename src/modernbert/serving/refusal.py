"""`Refusal`: why a request gets no result, in the words of HTTP."""

import math
from typing import Literal

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


class Refusal(Exception):
    """An answer other than a result.

    Args:
        status: Of HTTP.
        error_type: The kind, in the words of text-embeddings-inference.
        retry_after: Seconds after which another try makes sense.
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
    """A request that says something that cannot be."""
    return Refusal(400, "Validation", message)


def empty(name: str) -> Refusal:
    """A request without anything to compute."""
    return Refusal(400, "Empty", f"{name}: is empty; send at least one")


def too_large(message: str) -> Refusal:
    """A request that asks for more than a limit allows."""
    return Refusal(413, "Validation", message)


def too_many_tokens(most: int) -> Refusal:
    """A request of more tokens than one may have."""
    return too_large(f"more than {most:,} tokens, which a request may have; send several requests")


def unsupported(model: str, kind: str, route: str) -> Refusal:
    """A route for which the model has no head."""
    return Refusal(424, "Backend", f"{route}: the model {model} has no head for it ({kind})")


def overloaded(message: str, retry_after: float) -> Refusal:
    """There is too much to do already."""
    return Refusal(429, "Overloaded", message, retry_after=retry_after)


def unavailable(message: str, retry_after: float) -> Refusal:
    """Not now: given up after too long, out of memory, or about to leave."""
    return Refusal(503, "Unhealthy", message, retry_after=retry_after)
