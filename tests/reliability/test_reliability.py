"""Kills, flips, crafted folders and hostile corpora, a few of each; the benchmark runs many."""

import json
import re
import signal
from inspect import getsource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.reliability import corpora, crafted, flips, kills, samples, soak, verbs

from modernbert.model import config_file

NUMBERS = (
    st.integers(-5, 1 << 70)
    | st.sampled_from([1 << n for n in range(8, 64, 4)])
    | st.floats(allow_nan=False)
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return samples.write_samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("name", ["out.npy", "several.index"])
def test_a_killed_embedding_ends_as_one_that_was_not(
    made: dict[str, Path], tmp_path: Path, name: str
) -> None:
    (verb,) = (each for each in verbs.all_verbs(made) if each.name.endswith(name))
    home = tmp_path / "kills" / "home"
    outcome = kills.run_verb(verb, home, most_places=3, random_kills=0, seed=1)
    assert outcome.faults == [] and outcome.chosen == 3


@pytest.mark.parametrize("name", ["out.npy", "mine", "average"])
@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGINT,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM,),
        (signal.SIGINT, signal.SIGKILL),
    ],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM", "Ctrl-C and a kill"],
)
def test_a_verb_that_is_asked_to_stop_says_so_and_loses_nothing(
    made: dict[str, Path], tmp_path: Path, name: str, signals: tuple[int, ...]
) -> None:
    (verb,) = (each for each in verbs.all_verbs(made) if each.name.endswith(name))
    home = tmp_path / "stops" / "home"
    outcome = kills.run_verb(
        verb, home, most_places=1, random_kills=1, seed=len(signals), signals=signals
    )
    assert outcome.faults == [] and outcome.chosen == outcome.random == 1


def test_a_kill_that_loses_something_is_seen(made: dict[str, Path], tmp_path: Path) -> None:
    """The same, with a verb that writes its output in two steps and does not look back."""
    verb = kills.Verb(
        name="torn",
        arguments=("mine", "pairs.jsonl", "embedder", "-o", "out.jsonl"),
        outputs=["out.jsonl"],
        prepare=lambda home: (home / "pairs.jsonl").touch(),
    )
    outcome = kills.run_verb(verb, tmp_path / "a" / "b", most_places=1, random_kills=0, seed=1)
    assert len(outcome.faults) == 1 and "without a kill" in outcome.faults[0]
    assert made


def test_flipped_bits_are_found(made: dict[str, Path]) -> None:
    outcome = flips.run({"int8.index": made["int8.index"]}, flips_each=2)
    assert outcome.faults == [] and outcome.flips == 2 * outcome.files > 10


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("embedder", "config_sentence_transformers.json"),
        ("embedder", "1_Pooling/config.json"),
        ("embedder", "modules.json"),
        ("int8.index", "manifest.json"),
        ("shards", "manifest.json"),
    ],
)
def test_crafted_files(made: dict[str, Path], name: str, file: str) -> None:
    values = (5, "x", [5], {"x": 5})
    crafted.use(made[name])
    outcome = crafted.in_child(lambda: crafted.try_file(made[name], file, values), name)
    assert outcome.faults == [] and outcome.folders > 20


def test_labels_that_are_none(made: dict[str, Path]) -> None:
    path = made["classifier"] / "config.json"
    before = path.read_text()
    for value in (5, True, 0.5, "x", ["x"]):
        outcome = crafted.Outcome()
        path.write_text(json.dumps({**json.loads(before), "id2label": value}))
        crafted.try_folder(made["classifier"], f"id2label = {value}", outcome)
        assert outcome.faults == []
    path.write_text(before)


# What a tokenizer.json may hold besides; another library reads it.
_TOKENIZER = {
    "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": 8,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    },
}


@pytest.fixture(scope="module")
def numbers(made: dict[str, Path]) -> list[tuple[Path, Any, tuple[Any, ...]]]:
    """Every number of every JSON file, and those that the readers know: file, content, place."""
    found = []
    for folder in made.values():
        known: dict[str, set[tuple[Any, ...]]] = {}
        with crafted.noting_keys(known):
            crafted.use(folder)
        for name in crafted.files_of(folder):
            path = folder / name
            content = json.loads(path.read_text())
            if path.name == "tokenizer.json":
                content |= _TOKENIZER
            places = crafted.number_places(content, known.get(path.name, ()))
            found += [(path, content, place) for place in places]
    return found


def test_every_number_that_is_read_is_drawn(
    numbers: list[tuple[Path, Any, tuple[Any, ...]]],
) -> None:
    """Those of config.json are named in its reader; those of the other files in their classes."""
    drawn: dict[str, set[Any]] = {}
    for path, _, place in numbers:
        drawn.setdefault(path.name, set()).add(place[-1])
    asked = re.findall(r"(?:integer|number)\(published, \"(\w+)\"", getsource(config_file))
    assert len(asked) > 8 and set(asked) <= drawn["config.json"]
    assert set(config_file.PUBLISHED_IDS) <= drawn["config.json"]
    for name, keys in {
        "modules.json": {"idx"},
        "sentence_bert_config.json": {"max_seq_length"},
        "tokenizer.json": {"id", "max_length", "stride", "Fixed", "pad_to_multiple_of"},
        "tokenizer_config.json": {"model_max_length"},
        "manifest.json": {"count", "dim", "num_tokens", "vocab_size"},
    }.items():
        assert keys <= drawn[name], (name, sorted(map(str, drawn[name])))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_number_of_a_stranger_sizes_the_memory(
    made: dict[str, Path],
    numbers: list[tuple[Path, Any, tuple[Any, ...]]],
    data: st.DataObject,
) -> None:
    by_file: dict[Path, list[tuple[Any, tuple[Any, ...]]]] = {}
    for each, content, place in numbers:
        by_file.setdefault(each, []).append((content, place))
    path = data.draw(st.sampled_from(sorted(by_file)))
    content = by_file[path][0][0]
    for _, place in data.draw(st.lists(st.sampled_from(by_file[path]), min_size=1, max_size=3)):
        content = crafted.with_number(content, place, data.draw(NUMBERS))
    (folder,) = (each for each in made.values() if path.is_relative_to(each))
    crafted.use(folder)
    before = path.read_text()

    def one() -> crafted.Outcome:
        outcome = crafted.Outcome()
        crafted.try_folder(folder, f"{path.name}: {content}"[:3000], outcome)
        return outcome

    try:
        path.write_text(json.dumps(content))
        assert crafted.in_child(one, f"{folder.name}/{path.name}").faults == []
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["a pipe", "a link out of the folder", "xz of 256 MB of zeros"])
def test_hostile_corpora(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(corpora, "CORPORA", {name: corpora.CORPORA[name]})
    assert corpora.run(made, tmp_path / "corpora").faults == []


def test_growth_is_told_after_the_first_quarter() -> None:
    flat = soak.Outcome(resident_bytes=[1, 50, 99, 100, 100, 100, 100, 101])
    assert flat.growth_bytes == 1
    growing = soak.Outcome(resident_bytes=[float(10 * index) for index in range(40)])
    assert growing.growth_bytes == 200
