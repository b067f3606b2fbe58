"""The HTTP side of a service: bodies in, answers and errors out."""

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route as PathRoute

from modernbert.kinds import ModelKind
from modernbert.serving import schemas
from modernbert.serving.heads import Route
from modernbert.serving.models import ServedModel
from modernbert.serving.openapi import describe
from modernbert.serving.refusal import Refusal, invalid, too_large, unavailable
from modernbert.serving.routes import ROOT_ROUTES, ROUTES
from modernbert.serving.service import Call, Service

R = TypeVar("R")
Endpoint = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("page.html")
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
_CLIENT_GONE = 499
_BY_PATH = {route.path: route for route in ROUTES}
_AT_ROOT = {route.path: route for route in ROOT_ROUTES}
_ROOT_PATHS: dict[ModelKind, str] = {
    "encoder": "/embed",
    "embedder": "/embed",
    "multi_vector": "/embed_all",
    "sparse": "/embed_sparse",
    "classifier": "/predict",
    "reranker": "/rerank",
    "tagger": "/tag",
    "answerer": "/answer",
    "masked_lm": "/fill-mask",
}


def make_app(service: Service) -> Starlette:
    """The application of a service, which whoever runs it starts and closes."""
    http = _Http(service)
    paths = [
        PathRoute("/", http.page, methods=["GET"]),
        PathRoute("/health", http.health),
        PathRoute("/ping", http.health),
        PathRoute("/openapi.json", http.openapi),
        PathRoute("/metrics", _locked(service, http.metrics)),
        PathRoute("/v1/models", _locked(service, http.list_models)),
        *_paths_of(http, "", None),
    ]
    for model in service.models.values():
        paths += _paths_of(http, f"/{model.name}", model)
    return Starlette(routes=paths, exception_handlers={HTTPException: _not_found})


def _paths_of(http: "_Http", prefix: str, model: ServedModel | None) -> list[PathRoute]:
    """The paths below a model's name, or those of whichever model can do it."""
    shown = model or next(iter(http.service.models.values()))
    default = (_BY_PATH | _AT_ROOT)[_ROOT_PATHS[shown.kind]]
    computing = dict(_BY_PATH)
    computing |= {"/embeddings": _BY_PATH["/v1/embeddings"], "/invocations": default, "/": default}
    paths = [PathRoute(f"{prefix}/info", _locked(http.service, partial(http.info, shown)))]
    for path, route in computing.items():
        endpoint = partial(http.compute, route, model)
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

    async def compute(self, route: Route, model: ServedModel | None, request: Request) -> Response:
        """Answer a request of one of `ROUTES`."""
        telemetry = self.service.telemetry
        try:
            _authorize(self.service, request)
            self.service.admit()
        except Refusal as refusal:
            return self._refused(route, refusal)
        telemetry.requests.labels(route.path).inc()
        telemetry.running.inc()
        self.service.num_running += 1
        try:
            return await self._answer(route, model, request)
        except Refusal as refusal:
            return self._refused(route, refusal)
        except ClientDisconnect:
            telemetry.failures.labels("disconnected").inc()
            return Response(status_code=_CLIENT_GONE)
        except Exception:
            _log.exception("%s failed", route.path)
            said = "internal error; the server's log says more"
            return self._refused(route, Refusal(500, "Backend", said))
        finally:
            self.service.num_running -= 1
            telemetry.running.dec()

    async def _answer(self, route: Route, model: ServedModel | None, request: Request) -> Response:
        began = monotonic()
        _require_json(request)
        message = _decoded(await self._body(request), route)
        name = model.name if model is not None else message.model  # type: ignore[attr-defined]
        chosen = self.service.model_for(route.abilities, name, route.path)
        call = Call(self.service, chosen)
        answer = await _while_connected(request, self._in_time(route.answer(call, message)))
        content = await call.off_loop(msgspec.json.encode, answer)
        seconds = monotonic() - began
        self.service.telemetry.success(route.path, call.timing, seconds)
        headers = call.timing.headers(seconds, self.service.device.type)
        return Response(content, media_type="application/json", headers=headers)

    async def _body(self, request: Request) -> bytes:
        most, body = self.settings.max_body_bytes, bytearray()
        refusal = too_large(f"body: larger than {most:,} bytes; send several requests")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and float(declared) > most:
            raise refusal
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise refusal
        except TimeoutError:
            limit = f"{self.settings.body_seconds:g} seconds"
            raise Refusal(408, "Validation", f"body: was not complete after {limit}") from None
        return bytes(body)

    async def _in_time(self, work: Awaitable[R]) -> R:
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await work
        except TimeoutError:
            raise unavailable(
                f"no result within {self.settings.timeout_seconds:g} seconds",
                retry_after=self.service.engine.seconds_of_work(),
            ) from None

    def _refused(self, route: Route, refusal: Refusal) -> Response:
        self.service.telemetry.failures.labels(refusal.error_type).inc()
        return _error(refusal, is_openai=route.is_openai)

    async def info(self, model: ServedModel, _: Request) -> Response:
        """What a model is, and the limits."""
        settings, service = self.settings, self.service
        routes = [route.path for route in ROUTES if model.can(route.abilities)]
        return _json(
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
        """The names of the models, as OpenAI lists them."""
        return _json(schemas.OpenAIModels([schemas.OpenAIModel(n) for n in self.service.models]))

    async def health(self, _: Request) -> Response:
        """Whether requests are taken."""
        if self.service.is_draining:
            return _error(unavailable("the server is shutting down", retry_after=5))
        return Response()

    async def metrics(self, _: Request) -> Response:
        """What Prometheus reads."""
        return PlainTextResponse(self.service.telemetry.render())

    async def openapi(self, _: Request) -> Response:
        """The description of the routes."""
        return Response(self._description, media_type="application/json")

    async def page(self, _: Request) -> Response:
        """A page to try the routes on."""
        headers = {"content-security-policy": _PAGE_POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=headers)


def _locked(service: Service, endpoint: Endpoint) -> Endpoint:
    """An endpoint that wants the key, if there is one."""

    async def answer(request: Request) -> Response:
        try:
            _authorize(service, request)
        except Refusal as refusal:
            return _error(refusal)
        return await endpoint(request)

    return answer


def _authorize(service: Service, request: Request) -> None:
    key = service.settings.api_key
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, so that a key cannot be guessed letter by letter.
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
    if scheme.lower() != "bearer" or not is_same:
        raise Refusal(401, "Unauthorized", "expected the header Authorization: Bearer KEY")


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise Refusal(
            415,
            "Validation",
            f"content-type: got {kind or 'none'}, expected application/json",
        )


def _decoded(body: bytes, route: Route) -> msgspec.Struct:
    try:
        return msgspec.json.decode(body, type=route.request)
    except msgspec.ValidationError as error:
        raise invalid(_with_field(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"body: not JSON in UTF-8: {error}") from None
    except RecursionError:
        raise invalid("body: nested too deeply") from None


def _with_field(said: str) -> str:
    """Rewrite a message of msgspec so that it begins with the field.

    >>> _with_field("Expected `str`, got `int` - at `$.texts[1]`")
    'texts[1]: expected `str`, got `int`'
    >>> _with_field("Object missing required field `query`")
    'query: is missing'
    """
    said, _, place = said.partition(" - at `$")
    field = place.rstrip("`").lstrip(".")
    if missing := re.search(r"missing required field `(\w+)`", said):
        return f"{field}.{missing[1]}: is missing" if field else f"{missing[1]}: is missing"
    return f"{field or 'body'}: {said[:1].lower()}{said[1:]}"


async def _while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The result of some work, which is given up when the client goes away.

    Raises:
        ClientDisconnect: it went away.
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


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = msgspec.json.encode(value)
    return Response(content, status, media_type="application/json", headers=headers)


def _error(refusal: Refusal, *, is_openai: bool = False) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    body: Any = schemas.ErrorResponse(refusal.message, refusal.error_type)
    if is_openai:
        body = schemas.OpenAIErrorResponse(refusal.message, refusal.status, refusal.error_type)
    return _json(body, refusal.status, headers)


async def _not_found(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    is_path = error.status_code == 404
    said = f"{request.url.path}: no such path; see /openapi.json" if is_path else error.detail
    body = schemas.ErrorResponse(said, "NotFound" if is_path else "Validation")
    return _json(body, error.status_code, dict(error.headers or {}))
