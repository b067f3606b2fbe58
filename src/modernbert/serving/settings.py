"""What a server allows, and how it batches."""

import os
from dataclasses import dataclass

from modernbert.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Limits of a server; those that text-embeddings-inference has too have its defaults.

    batch_tokens: the most tokens that are computed at once; None for what the device likes.
    max_body_bytes: of a request.
    max_inputs: texts of a request.
    max_request_tokens: of all texts of a request together.
    max_concurrent_requests: further ones are refused.
    max_queue_tokens: waiting to be computed; a request that does not fit is refused.
    max_wait_seconds: a request is refused when the work ahead of it would take longer.
    timeout_seconds: a request that is not answered by then is given up.
    body_seconds: how long a client may take to send a request's body.
    auto_truncate: cut texts that are too long where a request does not say whether to.
    api_key: what clients must send as `Authorization: Bearer KEY`; None for no key.
    tokenization_workers: threads that tokenize.
    """

    batch_tokens: int | None = None
    max_body_bytes: int = 2_000_000
    max_inputs: int = 32
    max_request_tokens: int = 65_536
    max_concurrent_requests: int = 512
    max_queue_tokens: int = 1_048_576
    max_wait_seconds: float = 10.0
    timeout_seconds: float = 60.0
    body_seconds: float = 30.0
    auto_truncate: bool = False
    api_key: str | None = None
    tokenization_workers: int = min(os.cpu_count() or 1, 8)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and value <= 0:
                raise SettingsError(f"{name}: got {value}, expected more than 0")
        if self.api_key == "":
            raise SettingsError("api_key: is empty; leave it out for a server without a key")
