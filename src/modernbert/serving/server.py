"""Running a service: its socket, uvicorn, and an orderly shutdown."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Collection
from time import monotonic
from types import FrameType

import uvicorn

from modernbert.errors import InputError
from modernbert.serving.app import make_app
from modernbert.serving.connections import (
    ANY,
    Config,
    Connections,
    allowed_connections,
    is_loopback,
)
from modernbert.serving.service import Service

_BACKLOG = 2048
_SWITCH_SECONDS = 0.0005
_CLOSING_SECONDS = 2.0


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 chooses any free port.

    Its connections send what they have at once. asyncio arranges that for sockets that it makes
    itself; without it an answer on a kept connection waits 40 ms for the client's acknowledgement
    of its head.

    Raises:
        InputError: The address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot listen there: {error}") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """At the first SIGTERM or Ctrl-C it accepts no more work, finishes what it has, and exits.

    Until then `/health` answers 503, so that a load balancer sends nobody here. What is not
    finished by the deadline is cut off. A second signal ends the server at once.

    Args:
        listener: The socket to listen on, which is closed in the end.
        on_ready: Called when the server listens.

    Attributes:
        num_cut_off: How many requests were not finished when the server left.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        *,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        settings = service.settings
        self.connections = Connections(allowed_connections(settings.max_connections))
        app = make_app(service, allowed_hosts=_allowed_hosts(listener, settings.allowed_hosts))
        super().__init__(Config(app, settings, self.connections))
        self.service, self.listener, self.num_cut_off = service, listener, 0
        self._on_ready = on_ready
        self._deadline = float("inf")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or `should_exit`, ends it."""
        asyncio.run(self.serve(sockets or [self.listener]))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and announce it."""
        asyncio.get_running_loop().set_exception_handler(self.connections.on_error)
        await super().startup(sockets)
        if self.started:
            self.listener.listen(_BACKLOG)  # uvicorn asked for a shorter one
            if self._on_ready is not None:
                self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to shut down; uvicorn's own handler would end with the signal and not with 0."""
        if self.service.is_draining:
            self.should_exit = self.force_exit = True
        else:
            self._deadline = monotonic() + self.service.settings.shutdown_seconds
        self.service.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down; called ten times a second."""
        is_done = self.service.is_draining and not self.service.num_running
        return await super().on_tick(counter) or is_done or monotonic() >= self._deadline

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections, idle ones first."""
        self.num_cut_off = self.service.num_running
        if self.num_cut_off:
            self.connections.abort()
        asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self.connections.abort)
        await super().shutdown(sockets)


def _allowed_hosts(listener: socket.socket, names: Collection[str]) -> Collection[str] | None:
    """Return the names by which requests may call the server; None if any name is allowed."""
    address = str(listener.getsockname()[0])
    return None if ANY in names or not (names or is_loopback(address)) else names


def run(
    service: Service, listener: socket.socket, *, on_ready: Callable[[], None] | None = None
) -> tuple[int, bool]:
    """Serve until a signal arrives; call this in the main thread, which receives the signals.

    Returns:
        How many requests were cut off at the end, and whether all threads have stopped.
    """
    # Nothing that is there now will ever be garbage: a collection need not look at it, which
    # would take longer than a quick answer may.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
    server, is_done = Server(service, listener, on_ready=on_ready), False
    service.start()
    try:
        server.run()
    finally:
        is_done = service.close(_CLOSING_SECONDS if server.num_cut_off else None)
    return server.num_cut_off, is_done
