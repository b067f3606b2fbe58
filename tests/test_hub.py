"""Pushing: what is refused before anything is sent, what is sent, what the answers say."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from modernbert.errors import HubError
from modernbert.hub import check_folder, find_folder, push_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with a card, and what should stay here."""
    model = tmp_path / "mine"
    (model / "onnx").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "onnx/model.onnx", "README.md", ".secret"):
        (model / name).write_text("{}")
    (model / ".partial-update").mkdir()
    (model / ".partial-update" / "config.json").write_text("{}")
    return model


class Hub:
    """Stands for huggingface_hub's client, and keeps what it is told."""

    failure: Exception | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, **arguments: Any) -> str:
        self.calls.append(("create", arguments))
        if self.failure is not None:
            raise self.failure
        return f"https://hub.example/{arguments['repo_id']}"

    def upload_folder(self, **arguments: Any) -> None:
        self.calls.append(("upload", arguments))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    stub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return stub


def test_a_model_is_pushed(folder: Path, hub: Hub) -> None:
    assert push_folder(folder, "me/mine", private=True) == "https://hub.example/me/mine"
    (_, made), (_, sent) = hub.calls
    assert made == {"repo_id": "me/mine", "repo_type": "model", "private": True, "exist_ok": True}
    assert sent["folder_path"] == folder and sent["commit_message"] == "Push mine"
    from huggingface_hub.utils import filter_repo_objects

    paths = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    kept = filter_repo_objects(paths, ignore_patterns=sent["ignore_patterns"])
    assert sorted(kept) == ["README.md", "config.json", "model.safetensors", "onnx/model.onnx"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tokenizer.json", "model"), ("modules.json", "model"), ("manifest.json", "dataset")],
)
def test_each_kind_of_folder_has_its_kind_of_repository(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / name).write_text("[]" if name == "modules.json" else "{}")
    (tmp_path / "README.md").write_text("A card.")
    assert check_folder(tmp_path) == kind


def test_folders_that_are_not_fit(folder: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"nowhere: no such folder"):
        push_folder(tmp_path / "nowhere", "me/mine")
    with pytest.raises(HubError, match="expected a model, a tokenizer"):
        push_folder(tmp_path, "me/mine")
    with pytest.raises(HubError, match="mine: expected the form owner/name"):
        push_folder(folder, "mine")
    (folder / "onnx" / "old.pkl").write_text("")
    with pytest.raises(HubError, match=r"old.pkl: may be a pickle"):
        push_folder(folder, "me/mine")
    (folder / "onnx" / "old.pkl").unlink()
    (folder / "README.md").write_text(" \n")
    with pytest.raises(HubError, match=r"has no card; write README.md"):
        push_folder(folder, "me/mine")
    assert hub.calls == []


def test_without_a_token_or_offline(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    with monkeypatch.context() as changed:
        changed.setattr(huggingface_hub, "get_token", lambda: None)
        with pytest.raises(HubError, match="found no token; run `hf auth login`, or set HF_TOKEN"):
            push_folder(folder, "me/mine")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, "me/mine")
    assert hub.calls == []


def test_without_a_network(folder: Path, hub: Hub) -> None:
    hub.failure = ConnectionError("Name or service not known\nmore lines")
    with pytest.raises(HubError, match=r"nothing was pushed: Name or service not known$"):
        push_folder(folder, "me/mine")


class Refusing(BaseHTTPRequestHandler):
    status = 401

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"error": "refused"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "the token was refused"), (403, "may not write there"), (404, "no such owner")],
)
def test_refusals_by_a_real_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    import huggingface_hub

    client = huggingface_hub.HfApi
    monkeypatch.setattr(Refusing, "status", status)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            huggingface_hub, "HfApi", lambda: client(endpoint=address, token="hf_secret")
        )
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(HubError, match=f"nothing was pushed: .*{said}"):
            push_folder(folder, "me/mine")
        server.shutdown()


def test_in_a_process_that_has_imported_nothing_else(folder: Path) -> None:
    """Offline, in one line."""
    command = [sys.executable, "-m", "modernbert", "push", str(folder), "someone/mine"]
    around = {**os.environ, "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(command, env=around, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == (
        "error: someone/mine: HF_HUB_OFFLINE is set, so nothing can be pushed\n"
    )


def test_a_revision_pins_what_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []

    def download(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert allow_patterns == ["*.json"]
        asked.append((hub_id, revision))
        if revision == "missing":
            raise OSError("no such revision")
        return str(tmp_path)

    def find(name: str) -> Path:
        return find_folder(name, patterns=["*.json"], content="x", error=HubError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    for name in ("me/mine", "me/mine@v1.0", "me/mine@0a1b2c3", "me/mine@refs/pr/1", "mine@main"):
        assert find(name) == tmp_path
    assert asked == [
        ("me/mine", None),
        ("me/mine", "v1.0"),
        ("me/mine", "0a1b2c3"),
        ("me/mine", "refs/pr/1"),
        ("mine", "main"),
    ]
    with pytest.raises(HubError, match="me/mine@missing"):
        find("me/mine@missing")
    for name in ("me/mine@", "me/mine@../x", "me/mine@a b", "me/mine@-x"):
        with pytest.raises(HubError, match="after the @"):
            find(name)
    (tmp_path / "here@v1").mkdir()
    assert find("here@v1") == Path("here@v1")
    assert len(asked) == 6
