"""The HTTP side of a service: every route, from a request's head until its answer is taken."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from importlib.metadata import version
from time import monotonic
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as PathRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from modernbert.inference.loading import class_for
from modernbert.serving import schemas
from modernbert.serving.answers import (
    Refusal,
    error_response,
    json_response,
    send_answer,
    unavailable,
)
from modernbert.serving.bodies import Hold, decode_body, read_body
from modernbert.serving.connections import HostCheck
from modernbert.serving.heads import Route
from modernbert.serving.models import ServedModel
from modernbert.serving.page import describe, docs_page, page_response, try_page
from modernbert.serving.routes import ROOT_ROUTES, ROUTES
from modernbert.serving.service import Call, Service

R = TypeVar("R")

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

_BY_PATH = {route.path: route for route in ROUTES}
_AT_ROOT = {route.path: route for route in ROOT_ROUTES}


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


def make_app(service: Service, *, allowed_hosts: Collection[str] | None = None) -> ASGIApp:
    """Make the application of a service; whoever runs it also starts and closes the service.

    Args:
        service: The service that answers.
        allowed_hosts: Names that requests may call the server by, besides those of this machine;
            any when None.
    """
    http = _Http(service)
    paths = [
        PathRoute("/", http.page, methods=["GET"]),
        PathRoute("/health", http.health),
        PathRoute("/ping", http.health),
        PathRoute("/openapi.json", http.openapi),
        PathRoute("/docs", http.docs),
        PathRoute("/metrics", _locked(service, http.metrics)),
        PathRoute("/v1/models", _locked(service, http.list_models)),
        PathRoute("/v1/models/{name}", _locked(service, http.one_model)),
        *_paths_of(http, "", None),
    ]
    for model in service.models.values():
        paths += _paths_of(http, f"/{model.name}", model)
    app = Starlette(routes=paths, exception_handlers={HTTPException: _not_found})
    app.router.redirect_slashes = False  # to an address made of the Host that was sent
    return app if allowed_hosts is None else HostCheck(app, allowed_hosts)


def _paths_of(http: "_Http", prefix: str, model: ServedModel | None) -> list[PathRoute]:
    """The routes below a model's name, or those that any suitable model may answer."""
    shown = model or next(iter(http.service.models.values()))
    ability = class_for(shown.kind)
    default = next(route for route in ROUTES if ability in route.abilities)
    default = _AT_ROOT.get(default.path, default)
    computing = dict(_BY_PATH)
    computing |= {"/embeddings": _BY_PATH["/v1/embeddings"], "/invocations": default, "/": default}
    paths = [PathRoute(f"{prefix}/info", _locked(http.service, partial(http.info, shown)))]
    for path, route in computing.items():
        endpoint = Computing(http.service, route, model)
        full = (prefix + path).rstrip("/") or "/"
        paths.append(PathRoute(full, endpoint, methods=["POST"]))
    return paths


class _Http:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self.service, self.settings = service, service.settings
        with_key = self.settings.api_key is not None
        description = describe(version("modernbert"), with_key=with_key)
        self._description = msgspec.json.encode(description)
        self._docs = page_response(docs_page(description))
        self._page = page_response(try_page())

    async def info(self, model: ServedModel, _: Request) -> Response:
        """Describe a model and the limits of the server."""
        settings, service = self.settings, self.service
        routes = [route.path for route in ROUTES if model.can(route.abilities)]
        return json_response(
            schemas.Info(
                model_id=model.name,
                model_dtype=model.dtype,
                model_type=model.description,
                max_concurrent_requests=settings.max_concurrent_requests,
                max_input_length=model.max_seqlen,
                max_batch_tokens=service.batch_tokens,
                max_client_batch_size=settings.max_inputs,
                auto_truncate=settings.auto_truncate,
                tokenization_workers=settings.tokenization_workers,
                version=version("modernbert"),
                models=list(service.models),
                routes=routes,
            )
        )

    async def list_models(self, _: Request) -> Response:
        """List the names of the models, in OpenAI's format."""
        return json_response(
            schemas.OpenAIModels([schemas.OpenAIModel(n) for n in self.service.models])
        )

    async def one_model(self, request: Request) -> Response:
        """Describe one model, or say that there is none of that name."""
        name = request.path_params["name"]
        if name not in self.service.models:
            known = ", ".join(self.service.models)
            missing = Refusal(404, "NotFound", f"model: got {name!r}, expected one of {known}")
            return error_response(missing, is_openai=True)
        return json_response(schemas.OpenAIModel(name))

    async def health(self, _: Request) -> Response:
        """Say whether the server takes requests."""
        if self.service.is_draining:
            return error_response(unavailable("the server is shutting down", retry_after=5))
        return Response()

    async def metrics(self, _: Request) -> Response:
        """Return the metrics in the format of Prometheus."""
        return PlainTextResponse(self.service.telemetry.render())

    async def openapi(self, _: Request) -> Response:
        """Return the OpenAPI description of the routes."""
        return Response(self._description, media_type="application/json")

    async def docs(self, _: Request) -> Response:
        """Return the description of the routes as a page."""
        return self._docs

    async def page(self, _: Request) -> Response:
        """Return the page on which people try the routes."""
        return self._page


def _locked(service: Service, endpoint: Endpoint) -> Endpoint:
    """An endpoint that requires the key, if one is set."""

    async def answer(request: Request) -> Response:
        try:
            authorize(service, request)
        except Refusal as refusal:
            return error_response(refusal)
        return await endpoint(request)

    return answer


async def _not_found(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown path or method."""
    assert isinstance(error, HTTPException)
    is_path = error.status_code == 404
    said = f"{request.url.path}: no such path; see /openapi.json" if is_path else error.detail
    body = schemas.ErrorResponse(said, "NotFound" if is_path else "Validation")
    return json_response(body, error.status_code, dict(error.headers or {}))
