"""What a server says of itself: its pages, which run nothing else, and its OpenAPI description."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec
from starlette.responses import HTMLResponse

from modernbert.serving import schemas
from modernbert.serving.heads import Route
from modernbert.serving.routes import ROUTES

_FOLDER = Path(__file__).parent
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


def try_page() -> str:
    """Return the page on which people try the routes."""
    style, views, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "views.js", "page.js")
    )
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    return page.replace("{style}", style).replace("{script}", views + script)


def page_response(page: str) -> HTMLResponse:
    """Answer with a page that runs its own scripts and styles, named by their hashes, and no other.

    Args:
        page: The page; its scripts and styles have no attributes.
    """
    policy = (
        f"default-src 'none'; style-src {_hashes(page, 'style')}; "
        f"script-src {_hashes(page, 'script')}; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    return HTMLResponse(page, headers=headers)


def _hashes(page: str, tag: str) -> str:
    parts = re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
    digests = [hashlib.sha256(part.encode()).digest() for part in parts]
    return " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests) or "'none'"


_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
code, pre { font: .9rem/1.45 ui-monospace, monospace; }
pre { padding: .7rem; overflow: auto; border: 1px solid #8886; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid #8884; }
section { margin-top: 2.5rem; }
"""


def docs_page(description: Mapping[str, Any]) -> str:
    """Return an HTML page that shows an OpenAPI description.

    Args:
        description: The whole document.
    """
    schemas = description["components"]["schemas"]
    sections = "".join(
        _section(path, method, operation, schemas)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Routes</title>'
        f"<style>{_STYLE}</style></head><body><h1>Routes</h1>"
        f"<p>{escape(description['info']['description'])} "
        '<a href="/">Try them</a>, or read <a href="/openapi.json">openapi.json</a>.</p>'
        f"{sections}</body></html>"
    )


def _section(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    parts.append(f"<p>{escape(operation['summary'])}</p>")
    if "requestBody" in operation:
        schema = _resolved(
            operation["requestBody"]["content"]["application/json"]["schema"], schemas
        )
        rows = "".join(_rows(schema, schemas))
        parts.append(f"<table><tr><th>field<th>type<th>default</tr>{rows}</table>")
        body = escape(json.dumps(_example(schema, schemas)))
        call = f"curl localhost:8080{escape(path)} -H 'content-type: application/json' -d '{body}'"
        parts.append(f"<pre>{call}</pre>")
    refusals = [
        f"<li><code>{status}</code> {escape(answer['description'])}</li>"
        for status, answer in operation["responses"].items()
        if status != "200"
    ]
    if refusals:
        parts.append(f"<details><summary>Refusals</summary><ul>{''.join(refusals)}</ul></details>")
    return f"<section>{''.join(parts)}</section>"


def _rows(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema["properties"].items():
        is_needed = name in schema.get("required", ())
        default = "must be given" if is_needed else json.dumps(field.get("default"))
        text = escape(field.get("description", ""))
        kind = escape(_type(field, schemas))
        yield f"<tr><td><code>{name}</code><td>{kind}<br>{text}<td>{escape(default)}</tr>"


def _type(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Describe a type in words."""
    field = _resolved(field, schemas)
    if "anyOf" in field:
        return " or ".join(_type(each, schemas) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(json.dumps(each) for each in field["enum"])
    if field.get("type") == "array":
        return f"list of ({_type(field.get('items', {}), schemas)})"
    if field.get("type") == "object":
        inner = ", ".join(field.get("properties", ()))
        return f"object of {inner}" if inner else "object"
    return str(field.get("type", "any"))


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """Return the first example of each required field."""
    schema = _resolved(schema, schemas)
    if "examples" in schema:
        return schema["examples"][0]
    fields = schema.get("properties", {})
    return {name: _example(fields[name], schemas) for name in schema.get("required", ())}


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return schemas[name] if name else schema


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
