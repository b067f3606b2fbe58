"""Folders of runs whose files somebody else wrote or broke: one line, never a traceback."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.reliability.kills import Verb
from tests.reliability.samples import write_samples
from tests.reliability.verbs import all_verbs

_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # making it smaller takes minutes
_EXAMPLES = int(os.environ.get("MODERNBERT_TEST_EXAMPLES", "12"))
_RUNS = ("pretrain", "finetune classify", "a sweep", "evaluate (retrieval)")
_NUMBERS = st.integers(-(10**40), 10**40) | st.floats() | st.sampled_from([0, 1, -1, 10**400])
VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=8) | st.just("\x1b[2J\x00"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Everything of charts but their pictures, which cost a second each."""
    from matplotlib.figure import Figure

    from modernbert.report import charts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts.Chart, "_svg", lambda chart: chart.draw(Figure().add_subplot()) or "")
        patch.setattr(Figure, "savefig", lambda _, file, **__: file.write(b"a picture"))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verb]:
    """Finished runs of several kinds, as their verbs, each in a folder of its own."""
    home = tmp_path_factory.mktemp("runs")
    (home / "samples").mkdir()
    return {
        verb.name: verb for verb in all_verbs(write_samples(home / "samples")) if verb.name in _RUNS
    }


@pytest.fixture(scope="module")
def finished(runs: dict[str, Verb], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from modernbert.cli import main

    places = {}
    for name, verb in runs.items():
        place = tmp_path_factory.mktemp("finished") / "home"
        place.mkdir()
        verb.prepare(place)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.chdir(place)
            main(list(verb.arguments))
        assert left.value.code == 0
        places[name] = place
    return places


def _changed(data: st.DataObject, content: Any) -> Any:
    """The content of a JSON file with one value changed, left out or added, at any depth."""
    if isinstance(content, dict) and content and data.draw(st.booleans(), label="deeper"):
        key = data.draw(st.sampled_from(sorted(content)))
        return {**content, key: _changed(data, content[key])}
    if isinstance(content, list) and content and data.draw(st.booleans(), label="deeper"):
        at = data.draw(st.integers(0, len(content) - 1))
        return [*content[:at], _changed(data, content[at]), *content[at + 1 :]]
    if isinstance(content, dict) and content and data.draw(st.booleans(), label="left out"):
        gone = data.draw(st.sampled_from(sorted(content)))
        return {key: value for key, value in content.items() if key != gone}
    return data.draw(VALUES)


def _broken(data: st.DataObject, path: Path) -> bytes:
    before = path.read_bytes()
    how = data.draw(st.sampled_from(["value", "value", "value", "cut", "bytes"]))
    if how == "cut":
        return before[: data.draw(st.integers(0, len(before)))]
    if how == "bytes" or path.suffix not in (".json", ".jsonl"):
        at = data.draw(st.integers(0, len(before)))
        return before[:at] + data.draw(st.binary(min_size=1, max_size=8)) + before[at + 1 :]
    if path.suffix == ".json":
        return json.dumps(_changed(data, json.loads(before))).encode(errors="surrogatepass")
    lines = before.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = json.dumps(_changed(data, json.loads(lines[at]))).encode(errors="surrogatepass")
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("name", _RUNS)
@settings(
    phases=_PHASES,
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_a_broken_file_of_a_run_is_one_line(
    run: Callable[..., Any],
    runs: dict[str, Verb],
    finished: dict[str, Path],
    tmp_path: Path,
    name: str,
    data: st.DataObject,
) -> None:
    home, before = tmp_path / "home", Path.cwd()
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(finished[name], home)
    files = sorted(
        path for path in (home / "run").rglob("*") if path.suffix in (".json", ".jsonl", ".toml")
    )
    path = data.draw(st.sampled_from(files))
    path.write_bytes(_broken(data, path))
    again = tuple(runs[name].arguments)
    verb = data.draw(
        st.sampled_from([("report", "run"), ("info", "run"), ("verify", "run"), again])
    )
    os.chdir(home)
    try:
        answer = run(*verb)
    finally:
        os.chdir(before)
    said = f"{path.relative_to(home)}: {answer}"
    assert answer.exit_code in (0, 2), said
    assert "Traceback" not in answer.stderr, said
    if verb[0] != "verify":  # which lists what it finds
        assert answer.stderr.count("error: ") == (answer.exit_code == 2), said
