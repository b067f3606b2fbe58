"""The pages of a server, each whole in one answer, with headers that let it run nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse

_FOLDER = Path(__file__).parent


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
