"""Who may connect: a limit on number and time of connections, and the names of a local server.

uvicorn itself limits neither how many connections there are nor how long a head or an answer takes;
docs/decisions/connections.md compares what could be done about that.

A web page can give its own name the address 127.0.0.1 and so reach a server that only listens there
(DNS rebinding). The browser then sends the page's name as Host or Origin, which is refused.
"""

import asyncio
import errno
import logging
import re
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from time import monotonic
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from modernbert.serving.answers import Refusal, error_response
from modernbert.serving.settings import ServingSettings

_log = logging.getLogger(__name__)

_OTHER_DESCRIPTORS = 256  # for model files, threads, the event loop, and connections being closed
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EVICTED_AT_ONCE = 16
_READ_BYTES = 8192  # about 10 ms for the parser at the worst; asyncio would read 32 times as much
_SECONDS_BETWEEN_WARNINGS = 60.0
_BOTH_LENGTHS = {b"content-length", b"transfer-encoding"}

ANY = "*"

# Nothing but a name and a port: what else an address may have, others may read in another way.
_NAME = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?"
_HOST = re.compile(_NAME, re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://" + _NAME, re.ASCII | re.IGNORECASE)


class Connections:
    """The open connections of one server.

    When there are too many, the connection that has kept the server waiting longest, for a request
    or for the rest of one, is closed. A request that has arrived is never given up for another
    connection.

    Args:
        most: The most connections that may be open.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # the longest wait first
        self._warned = -_SECONDS_BETWEEN_WARNINGS

    def opened(self, connection: "Connection") -> None:
        """Count a new connection, and close another if it is one too many."""
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) > self.most:
            self.evict(1)

    def closed(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def set_waiting(self, connection: "Connection", is_waiting: bool) -> None:
        """Note whether the client of a connection is the one to send something next."""
        if not is_waiting:
            self._waiting.pop(connection, None)
        elif connection in self._open:
            self._waiting.setdefault(connection)

    def evict(self, number: int) -> None:
        """Close the connections that have kept the server waiting longest."""
        for connection in list(self._waiting)[:number]:
            self.closed(connection)
            connection.transport.abort()

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in list(self._open):
            connection.transport.abort()

    def on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of the event loop; errors about descriptors are logged once a minute."""
        if getattr(context.get("exception"), "errno", None) not in _NO_DESCRIPTORS:
            loop.default_exception_handler(context)
            return
        self.evict(_EVICTED_AT_ONCE)
        if monotonic() - self._warned > _SECONDS_BETWEEN_WARNINGS:
            self._warned = monotonic()
            _log.warning("a connection could not be accepted: %s", context["exception"])


class Config(uvicorn.Config):
    """uvicorn's settings, with what `Connection` needs."""

    def __init__(self, app: Any, settings: ServingSettings, connections: Connections) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,  # otherwise each stranger's malformed request is a line
            access_log=False,
            server_header=False,
            backlog=64,  # how many connections are accepted before other work goes on
        )
        self.timeout_keep_alive = settings.idle_seconds  # type: ignore[assignment]
        self.header_seconds = settings.header_seconds
        self.send_seconds = settings.send_seconds
        self.connections = connections


class Connection(H11Protocol):
    """One connection.

    It is closed when the head of a request does not arrive in time, when it stays idle, and when
    its client does not take what it is sent.
    """

    config: Config

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._looked_at: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        # What is read at once is taken apart at once, and a body may come in pieces of a byte.
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]
        # Each piece of an answer waits until the one before it has been taken.
        transport.set_write_buffer_limits(high=0)
        self._head_timer = self._abort_after(self.config.header_seconds)
        self.config.connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.connections.closed(self)
        _cancel(self._head_timer)
        self._head_timer = None
        _cancel(self._send_timer)
        self._send_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; from the first one of a head there is a time for all of it."""
        super().data_received(data)
        self._close_after_two_lengths()
        if not self._has_request and self._head_timer is None:
            self._head_timer = self._abort_after(self.config.header_seconds)
        self._note_state()

    def _close_after_two_lengths(self) -> None:
        """Read no further request after one with two lengths: others may see its end elsewhere."""
        if self.cycle is None or self.cycle is self._looked_at:
            return
        self._looked_at = self.cycle
        if {name for name, _ in self.headers} >= _BOTH_LENGTHS:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._note_state()

    def pause_writing(self) -> None:
        """Start the time within which the client must take what it is sent."""
        super().pause_writing()
        self._send_timer = self._abort_after(self.config.send_seconds)

    def resume_writing(self) -> None:
        """Stop that time, as the client has taken everything."""
        _cancel(self._send_timer)
        self._send_timer = None
        super().resume_writing()

    @property
    def _has_request(self) -> bool:
        """Whether a request has arrived that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _note_state(self) -> None:
        if self._has_request:
            _cancel(self._head_timer)
            self._head_timer = None
        has_all = self._has_request and not self.cycle.more_body
        self.config.connections.set_waiting(self, not has_all)

    def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def allowed_connections(wanted: int) -> int:
    """Return how many connections are possible; raise the limit of descriptors if necessary.

    Args:
        wanted: The number of connections to allow.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_DESCRIPTORS
    if resource.RLIM_INFINITY != soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(1, soft - _OTHER_DESCRIPTORS)
    _log.warning("%d descriptors are allowed: at most %d connections", soft, possible)
    return possible


class HostCheck:
    """An application that refuses requests to other names than its own.

    Args:
        app: What answers the others.
        names: Host names that are allowed, besides those of the loopback addresses.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, {_name_of(name, _HOST) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = self._refusal(scope["headers"]) if scope["type"] == "http" else None
        await (self.app if refusal is None else error_response(refusal))(scope, receive, send)

    def _refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        for header, value in headers:
            text = value.decode("latin-1")
            if header == b"host" and not self._allows(text, _HOST):
                return _forbidden("host", text)
            if header == b"origin" and not self._allows(text, _ORIGIN):
                return _forbidden("origin", text)
        return None

    def _allows(self, address: str, form: re.Pattern[str]) -> bool:
        name = _name_of(address, form)
        return name != "" and (is_loopback(name) or name in self.names)


def _name_of(address: str, form: re.Pattern[str]) -> str:
    """The name in an address; empty where it has another form.

    >>> [_name_of(each, _HOST) for each in ("[::1]:80", "Example.org.", "a@b", "a/b")]
    ['::1', 'example.org', '', '']
    """
    found = form.fullmatch(address)
    return "" if found is None else found[1].strip("[]").lower().rstrip(".")


def is_loopback(name: str) -> bool:
    """Return whether a host name or an address can mean nothing but this machine.

    >>> [is_loopback(name) for name in ("localhost", "127.0.0.2", "::1", "example.org")]
    [True, True, True, False]
    """
    name = name.lower().rstrip(".")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _forbidden(header: str, value: str) -> Refusal:
    return Refusal(
        403,
        "Forbidden",
        f"{header}: got {value!r}, but this server answers to names of this machine alone; "
        "add others with --allowed-host",
    )
