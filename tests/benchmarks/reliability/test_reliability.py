"""Kills, flips, crafted folders and hostile corpora, a few of each; the benchmark runs many."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.reliability import corpora, crafted, flips, kills, samples, verbs

NUMBERS = st.integers(-5, 1 << 70) | st.sampled_from([1 << n for n in range(8, 64, 4)])


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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_number_of_a_stranger_sizes_the_memory(
    made: dict[str, Path], data: st.DataObject
) -> None:
    name, file = data.draw(
        st.sampled_from(
            [
                ("embedder", "config.json"),
                ("embedder", "tokenizer_config.json"),
                ("multi_vector", "1_Dense/config.json"),
                ("int8.index", "manifest.json"),
                ("shards", "manifest.json"),
            ]
        )
    )
    path = made[name] / file
    before = path.read_text()
    content = json.loads(before)
    places = [key for key, value in content.items() if type(value) is int]
    for key in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
        content[key] = data.draw(NUMBERS)
    crafted.use(made[name])

    def one() -> crafted.Outcome:
        outcome = crafted.Outcome()
        crafted.try_folder(made[name], f"{file}: {content}", outcome)
        return outcome

    try:
        path.write_text(json.dumps(content))
        assert crafted.in_child(one, f"{name}/{file}").faults == []
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["a pipe", "a link out of the folder", "xz of 256 MB of zeros"])
def test_hostile_corpora(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(corpora, "CORPORA", {name: corpora.CORPORA[name]})
    assert corpora.run(made, tmp_path / "corpora").faults == []
