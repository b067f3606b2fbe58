"""`Computing`: the endpoint of a route, from a request's head until its answer has been taken."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from modernbert.serving.answers import error_response, send_answer
from modernbert.serving.bodies import Hold, decode_body, read_body
from modernbert.serving.heads import Route
from modernbert.serving.models import ServedModel
from modernbert.serving.refusal import Refusal, unavailable
from modernbert.serving.service import Call, Service

R = TypeVar("R")

_log = logging.getLogger(__name__)


class Computing:
    """Answers the requests of one route, as an ASGI application.

    Args:
        model: The model that the path names; None if the request or the route decides.
    """

    def __init__(self, service: Service, route: Route, model: ServedModel | None) -> None:
        self.service, self.route, self.model = service, route, model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; it is counted until its client has taken the answer."""
        service, telemetry = self.service, self.service.telemetry
        request = Request(scope, receive)
        refusal = None
        service.num_running += 1
        telemetry.running.inc()
        try:
            with Hold(service.memory) as hold:
                await self._answer(request, send, hold)
        except Refusal as error:
            refusal = error
        except ClientDisconnect:
            telemetry.failures.labels("disconnected").inc()
        except Exception:
            _log.exception("%s failed", self.route.path)
            refusal = Refusal(500, "Backend", "internal error; the server's log says more")
        finally:
            service.num_running -= 1
            telemetry.running.dec()
        if refusal is not None:
            telemetry.failures.labels(refusal.error_type).inc()
            response = error_response(refusal, is_openai=self.route.is_openai)
            await response(scope, receive, send)

    async def _answer(self, request: Request, send: Send, hold: Hold) -> None:
        authorize(self.service, request)
        self.service.admit()
        self.service.telemetry.requests.labels(self.route.path).inc()
        began = monotonic()
        body = await read_body(request, self.service.settings, hold)
        with self.service.computing():
            await _while_connected(request, self._compute(body, began, send, hold))

    async def _compute(self, body: bytes, began: float, send: Send, hold: Hold) -> None:
        route, service = self.route, self.service
        message = decode_body(body, route.request, service.settings)
        name = self.model.name if self.model is not None else message.model  # type: ignore[attr-defined]
        call = Call(service, service.model_for(route.abilities, name, route.path), hold)
        answer = await self._in_time(route.answer(call, message))
        seconds = monotonic() - began
        service.telemetry.success(route.path, call.timing, seconds)
        headers = call.timing.headers(seconds, service.device.type)
        await send_answer(send, answer, headers, call.off_loop)

    async def _in_time(self, work: Awaitable[R]) -> R:
        try:
            async with asyncio.timeout(self.service.settings.timeout_seconds):
                return await work
        except TimeoutError:
            raise unavailable(
                f"no result within {self.service.settings.timeout_seconds:g} seconds",
                retry_after=self.service.engine.seconds_of_work(),
            ) from None


def authorize(service: Service, request: Request) -> None:
    """Refuse a request without the key, if one is set.

    Raises:
        Refusal: The key is missing or wrong.
    """
    key = service.settings.api_key
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, so that a key cannot be guessed letter by letter.
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
    if scheme.lower() != "bearer" or not is_same:
        raise Refusal(401, "Unauthorized", "expected the header Authorization: Bearer KEY")


async def _while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """Return the result of some work; cancel the work when the client disconnects.

    Raises:
        ClientDisconnect: The client has disconnected.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
