"""What a server allows, and how it batches."""

import os
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Settings):
    """Limits of a server; those that text-embeddings-inference has too have its defaults.

    Raises:
        SettingsError: A value is out of its range.
    """

    batch_tokens: Annotated[
        int | None, Ge(1), Doc("The most tokens computed at once.", default="by device")
    ] = None
    max_inputs: Annotated[int, Ge(1), Doc("The most texts in a request.")] = 32
    max_request_tokens: Annotated[
        int, Ge(1), Doc("The most tokens in a request, all its texts together.")
    ] = 65_536
    max_body_bytes: Annotated[int, Ge(1), Doc("The largest request body, in bytes.")] = 2_000_000
    max_concurrent_requests: Annotated[
        int, Ge(1), Doc("The most requests in progress; further ones are refused with 429.")
    ] = 512
    max_queue_tokens: Annotated[
        int,
        Ge(1),
        Doc("The most tokens waiting; a request that does not fit is refused with 429."),
    ] = 1_048_576
    max_wait_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "Refuse a request if the work queued ahead of it takes longer than this many seconds.",
            flags=("--max-wait",),
        ),
    ] = 10.0
    timeout_seconds: Annotated[
        float, Gt(0), Doc("Give up on a request after this many seconds.", flags=("--timeout",))
    ] = 60.0
    body_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "How many seconds a client may take to send a request body.", flags=("--body-timeout",)
        ),
    ] = 30.0
    auto_truncate: Annotated[
        bool, Doc("Truncate texts that are too long, unless a request says otherwise.")
    ] = False
    api_key: Annotated[
        str | None,
        MinLen(1),
        Doc(
            "The key that clients must send as `Authorization: Bearer KEY`.",
            default="no key",
            env="MODERNBERT_API_KEY",
        ),
    ] = None
    tokenization_workers: Annotated[int, Ge(1), Doc("Threads that tokenize requests.")] = min(
        os.cpu_count() or 1, 8
    )
