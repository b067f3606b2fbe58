"""The limits of a server, and how it makes batches."""

import os
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class AddressSettings(Settings):
    """Where a server listens."""

    host: Annotated[
        str, Doc("Address to listen on; 0.0.0.0 can be reached from other machines.")
    ] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65_535), Doc("Port to listen on; 0 chooses a free one.")] = 8080


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Settings):
    """The limits of a server; those of text-embeddings-inference have the same defaults.

    Raises:
        SettingsError: A value is out of its range, or the key is not UTF-8 text.
    """

    batch_tokens: Annotated[
        int | None, Ge(1), Doc("The most tokens computed at once.", default="by device")
    ] = None
    max_inputs: Annotated[int, Ge(1), Doc("The most texts in a request.")] = 2048
    max_request_tokens: Annotated[
        int, Ge(1), Doc("The most tokens in a request, all its texts together.")
    ] = 300_000
    max_body_bytes: Annotated[int, Ge(1), Doc("The largest request body, in bytes.")] = 2_000_000
    max_held_bytes: Annotated[
        int,
        Ge(1),
        Doc("The most bytes of request bodies and answers held at once, all requests together."),
    ] = 1 << 29
    max_connections: Annotated[
        int,
        Ge(1),
        Doc(
            "The most open connections; beyond that, a new one closes the one that has kept the "
            "server waiting longest."
        ),
    ] = 2048
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
            "Refuse a request if the work queued ahead of it would take longer than this many "
            "seconds.",
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
    header_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "How many seconds a client may take to send the head of a request.",
            flags=("--header-timeout",),
        ),
    ] = 10.0
    idle_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "Close a connection on which no request has begun for this many seconds.",
            flags=("--idle-timeout",),
        ),
    ] = 75.0
    send_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "How many seconds a client may take to read each 64 KiB of an answer.",
            flags=("--send-timeout",),
        ),
    ] = 30.0
    shutdown_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "How many seconds requests in progress have to finish after SIGTERM or Ctrl-C.",
            flags=("--shutdown-timeout",),
        ),
    ] = 25.0
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
    allowed_hosts: Annotated[
        tuple[str, ...],
        Doc(
            "A host name by which clients may call a server that listens on a loopback address, "
            "besides localhost; * allows any. May be repeated.",
            flags=("--allowed-host",),
        ),
    ] = ()
    tokenization_workers: Annotated[int, Ge(1), Doc("Threads that tokenize requests.")] = min(
        os.cpu_count() or 1, 8
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            (self.api_key or "").encode()
        except UnicodeEncodeError:
            raise SettingsError("api_key: got bytes that are no text in UTF-8") from None
