"""The OpenAPI 3.1 description of the service, made from the types of the bodies."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modernbert.serving import schemas
from modernbert.serving.heads import Route
from modernbert.serving.routes import ROUTES

_REASONS = {
    400: "The body is no JSON, or a field of it cannot be; the message names the field.",
    401: "The key is missing or wrong.",
    404: "No model of this name.",
    408: "The body did not come in time.",
    413: "More text than a limit allows; or longer than the model reads, and truncate is not set.",
    415: "The body is not application/json.",
    422: "A text or a token id that cannot be tokenized.",
    424: "The model has no head for this, or failed.",
    429: "Too much to do; Retry-After says when to come again.",
    503: "Given up after too long, out of memory, or shutting down.",
}


def describe(version: str, *, with_key: bool) -> dict[str, Any]:
    """Return the whole document as JSON values.

    Args:
        version: The version of the package.
        with_key: Whether clients must send a key.
    """
    types = [kind for route in ROUTES for kind in (route.request, route.response)]
    types += [schemas.ErrorResponse, schemas.OpenAIErrorResponse, schemas.Info]
    types.append(schemas.OpenAIModels)
    found, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    of_type = [dict(schema) for schema in found]
    paths = {
        route.path: {"post": _operation(route, of_type[2 * place], of_type[2 * place + 1])}
        for place, route in enumerate(ROUTES)
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "ModernBERT",
            "version": version,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            "description": "With several models, the name of one may stand before each path: "
            "`/NAME/embed`.",
        },
        "paths": {**paths, **_readings(of_type[-2:])},
        "components": {"schemas": components},
    }
    if with_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _operation(
    route: Route, request: Mapping[str, Any], response: Mapping[str, Any]
) -> dict[str, Any]:
    error = schemas.OpenAIErrorResponse if route.is_openai else schemas.ErrorResponse
    refusals = {
        str(status): {"description": reason, "content": _json(_reference(error))}
        for status, reason in _REASONS.items()
    }
    return {
        "operationId": route.path.strip("/").replace("/", "_").replace("-", "_"),
        "summary": route.summary,
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {
            "200": {"description": route.summary, "content": _json(response)},
            **refusals,
        },
    }


def _readings(types: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the paths that only read and compute nothing."""
    info, models = types
    error = _json(_reference(schemas.ErrorResponse))
    locked = {"401": {"description": _REASONS[401], "content": error}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/info": _reading("The model and the limits.", _json(info), locked),
        "/v1/models": _reading("The names of the models.", _json(models), locked),
        "/v1/models/{name}": _one_model(locked),
        "/metrics": _reading("Counters for Prometheus.", text, locked),
        "/health": _reading(
            "Whether requests are taken.",
            None,
            {"503": {"description": "It is shutting down.", "content": error}},
        ),
    }


def _one_model(locked: Mapping[str, Any]) -> dict[str, Any]:
    error = _json(_reference(schemas.OpenAIErrorResponse))
    missing = {"description": _REASONS[404], "content": error}
    found = _reading(
        "One of the models.", _json(_reference(schemas.OpenAIModel)), {**locked, "404": missing}
    )
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    found["get"]["parameters"] = [name]
    return found


def _reading(summary: str, content: Any, refusals: Mapping[str, Any]) -> dict[str, Any]:
    found = {"description": summary, **({"content": content} if content else {})}
    return {"get": {"summary": summary, "responses": {"200": found, **refusals}}}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
