"""`Refusal`: why a request has no result, with the status for HTTP."""

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
