"""Running a service: a socket, uvicorn, and leaving in good order."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from modernbert.errors import InputError
from modernbert.serving.app import make_app
from modernbert.serving.service import Service


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot listen there: {error}") from None


class Server(uvicorn.Server):
    """At the first SIGTERM or Ctrl-C it takes no more work, finishes what it has, and leaves.

    Until then `/health` answers 503, so that a load balancer sends nobody here. A second signal
    ends it at once.
    """

    def __init__(self, service: Service, *, on_ready: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(
            make_app(service),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=round(service.settings.timeout_seconds) + 1,
        )
        super().__init__(config)
        self.service = service
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell so."""
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to leave; uvicorn's own way would end with the signal and not with 0."""
        if self.service.is_draining:
            self.should_exit = self.force_exit = True
        self.service.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to leave, asked ten times a second."""
        is_done = self.service.is_draining and not self.service.num_running
        return await super().on_tick(counter) or is_done


def run(
    service: Service, listener: socket.socket, *, on_ready: Callable[[], None] | None = None
) -> None:
    """Serve until a signal ends it; from the main thread, which gets the signals."""
    service.start()
    try:
        asyncio.run(Server(service, on_ready=on_ready).serve(sockets=[listener]))
    finally:
        service.close()
