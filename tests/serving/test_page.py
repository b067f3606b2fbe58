"""The pages of a server, each form with the answer that it shows, and its OpenAPI description."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from modernbert.serving import page
from modernbert.serving.page import describe
from modernbert.serving.routes import ROUTES

_VIEWS = Path(page.__file__).with_name("views.js")
# Just enough of a browser's document to see what is shown.
_DOCUMENT = """
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.style = {setProperty() {}}; }
  setAttribute(name, value) { this[name] = value; }
  append(...parts) { this.children.push(...parts); }
  get text() { return this.children.map(each => each.text ?? String(each)).join(" "); }
  marked() {
    const own = this.tag === "mark" ? [String(this.children[0])] : [];
    return [...own, ...this.children.flatMap(each => each.marked ? each.marked() : [])];
  }
}
globalThis.document = {createElement: tag => new Element(tag)};
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def _in_node(code: str, given: Any = None) -> Any:
    """What a line of JavaScript prints, after views.js and with `given`."""
    said = f"const given = {json.dumps(given)};\n(async () => {{{code}}})();"
    source = f"{_DOCUMENT}{_VIEWS.read_text(encoding='utf-8')}\n{said}"
    ran = subprocess.run(["node", "-"], input=source, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


_SHOW = """
const ask = async (path, body) => given.asked[path] ?? (() => {throw new Error(path)})();
const parts = await VIEWS[given.path].show(given.body, given.answer, ask);
console.log(JSON.stringify({
  text: parts.map(part => part.text).join(" "),
  marked: parts.flatMap(part => part.marked()),
}));
"""


def _shown(path: str, body: Any, answer: Any, **asked: Any) -> dict[str, Any]:
    given = {"path": path, "body": body, "answer": answer}
    return _in_node(_SHOW, {**given, "asked": {f"/{name}": value for name, value in asked.items()}})


def test_the_page_is_whole_and_runs_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "http://" not in answer.text and "https://" not in answer.text
    assert not re.search(r'\s(style|on\w+)="', answer.text)  # such a policy would ignore them


def test_the_policy_names_what_it_allows() -> None:
    """The digest is what `printf b | openssl dgst -sha256 -binary | base64` prints."""
    name = "content-security-policy"
    policy = page.page_response("<script>b</script>").headers[name]
    assert "script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='" in policy
    assert "style-src 'none'" in policy


@needs_node
def test_forms_ask_what_the_server_answers(client: httpx.Client) -> None:
    bodies = _in_node(
        "console.log(JSON.stringify(Object.fromEntries(Object.entries(VIEWS)"
        ".filter(([, view]) => view.body)"
        ".map(([path, view]) => [path, view.body(firstValues(view))]))))"
    )
    assert {*bodies} <= {route.path for route in ROUTES}
    for path, body in bodies.items():
        answer = client.post(path, json=body)
        if path == "/embed_sparse":  # no model of the fixture has it
            continue
        assert answer.status_code == 200, answer.text
        asked = (
            {"tokenize": client.post("/tokenize", json={"inputs": body["inputs"]}).json()}
            if (path == "/embed_all")
            else {}
        )
        assert _shown(path, body, answer.json(), **asked)["text"]


@needs_node
def test_entities_are_marked_in_the_text() -> None:
    """The server counts characters, JavaScript halves of them."""
    entity = {"entity_group": "PER", "score": 0.9, "word": "Ada", "start": 2, "end": 5}
    shown = _shown("/tag", {"inputs": ["\U0001f600 Ada wrote."]}, [[entity]])
    assert shown["marked"] == ["Ada"] and "90.0%" in shown["text"] and "PER" in shown["text"]
    words = {"entity_group": "PER", "score": 0.9, "word": "Ada L", "start": 1, "end": 3}
    assert _shown("/tag", {"inputs": [["By", "Ada", "L"]]}, [[words]])["marked"] == ["Ada L"]


@needs_node
def test_answers_are_marked_in_their_text() -> None:
    body = {"inputs": {"question": "Where?", "context": "It was in London."}}
    found = {"answer": "London", "score": 0.5, "start": 10, "end": 16}
    assert _shown("/answer", body, found)["marked"] == ["London"]
    none = _shown("/answer", body, {"answer": "", "score": 0.75, "start": 0, "end": 0})
    assert none["marked"] == [] and "No answer" in none["text"]


@needs_node
def test_masks_are_filled() -> None:
    mask = [{"token_str": " a", "score": 0.5}, {"token_str": " b", "score": 0.25}]
    shown = _shown("/fill-mask", {"inputs": "[MASK] or [MASK]."}, [mask, mask[::-1]])
    assert shown["marked"] == ["a", "b"] and "50.0%" in shown["text"]


@needs_node
def test_a_mask_of_another_name() -> None:
    asked = _in_node(
        'maskToken = "<mask>"; const view = VIEWS["/fill-mask"];'
        "console.log(JSON.stringify(view.body(firstValues(view))));"
    )
    assert asked["inputs"] == ["The <mask> was closed, so they went home."]


@needs_node
def test_labels_ranks_and_words_have_their_scores() -> None:
    label = {"label": "good", "score": 0.75, "chosen": True}
    assert "good  ✓" in _shown("/predict", {"inputs": [["a", "b"]]}, [[label]])["text"]
    none = [{"label": name, "score": 0.25, "chosen": False} for name in ("good", "bad")]
    assert "No label reaches" in _shown("/predict", {"inputs": [["a"]]}, [none])["text"]
    number = {"label": "stars", "score": 0.8}  # of a regression: no probability
    body = {"inputs": [["a"]], "raw_scores": True}
    assert "0.800" in _shown("/predict", body, [[number]])["text"]
    ranks = [{"index": 1, "score": 12.5}, {"index": 0, "score": -1.0}]
    shown = _shown("/rerank", {"query": "q", "texts": ["first", "second"]}, ranks)["text"]
    assert shown.index("second") < shown.index("first") and "12.500" in shown
    values = [[{"index": 7, "value": 0.5}, {"index": 9, "value": 2.0}]]
    shown = _shown("/embed_sparse", {"inputs": ["t"]}, values, decode=["heavy", "light"])["text"]
    assert "2 words" in shown and shown.index("heavy") < shown.index("light")


@needs_node
def test_similarities_are_shown() -> None:
    shown = _shown("/embed", {"inputs": ["a", "b"]}, [[1, 0], [0.6, 0.8]])["text"]
    assert "2 vectors of 2 numbers" in shown and "0.60" in shown


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
