"""The description is complete, and nothing that fits or does not fit it breaks the server."""

import os
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from modernbert.serving.openapi import describe
from modernbert.serving.routes import ROUTES

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.checks")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")
GenerationMode = schemathesis.GenerationMode

MAX_EXAMPLES = int(os.environ.get("MODERNBERT_FUZZ_EXAMPLES", "12"))


def test_the_description_has_every_route(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for route in ROUTES:
        assert set(described["paths"][route.path]) == {"post"}
    for path in ("/health", "/info", "/metrics", "/v1/models"):
        assert client.get(path).status_code == 200
        assert set(described["paths"][path]) == {"get"}
    assert "security" not in described
    assert describe("1", with_key=True)["security"] == [{"key": []}]


def test_the_page_of_routes(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for route in ROUTES:
        assert f"<code>POST {route.path}</code>" in answer.text
    assert "What is deep learning?" in answer.text and "http://" not in answer.text


def test_examples_of_the_page_are_answered(client: httpx.Client) -> None:
    """The page fills its form with these."""
    described = client.get("/openapi.json").json()
    for route in ROUTES:
        schema = described["components"]["schemas"][route.request.__name__]
        body = {name: _example(described, schema, name) for name in schema["required"]}
        answer = client.post(route.path, json=body)
        assert answer.status_code == (424 if route.path == "/embed_sparse" else 200), answer.text


def _example(described: Any, schema: Any, name: str) -> Any:
    field = schema["properties"][name]
    if "$ref" in field:
        inner = described["components"]["schemas"][field["$ref"].rpartition("/")[2]]
        return {each: _example(described, inner, each) for each in inner["required"]}
    return field["examples"][0]


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_server_error(address: str, path: str, mode: str) -> None:
    """Bodies that fit the description, and bodies that do not."""
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")

    @settings(
        max_examples=MAX_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path]["POST"].as_strategy(generation_mode=GenerationMode(mode)))
    def send(case: Any) -> None:
        case.call_and_validate(
            checks=[
                checks.not_a_server_error,
                openapi_checks.status_code_conformance,
                openapi_checks.content_type_conformance,
                openapi_checks.response_schema_conformance,
            ]
        )

    send()
