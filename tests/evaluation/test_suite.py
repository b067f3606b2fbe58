"""Suites: their files, the order of their tasks, and where their data are."""

from pathlib import Path

import pytest

from modernbert.errors import InputError, ModernBertError, SettingsError
from modernbert.evaluation.suite import Suite, TaskSettings, find_table, read_suite, suite_names


def task(name: str, **changes: object) -> TaskSettings:
    fields: dict[str, object] = {"kind": "classify", "metric": "accuracy", "train": "a", "dev": "b"}
    return TaskSettings(name=name, **{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", suite_names())
def test_those_of_the_package_can_be_read(name: str) -> None:
    suite = read_suite(name)
    assert suite.tasks and suite.in_order()


def test_glue_is_the_papers() -> None:
    suite = read_suite("glue")
    assert {each.name for each in suite.tasks} == {
        "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte",
    }  # fmt: skip
    assert {each.name for each in suite.tasks if each.start_from == "mnli"} == {
        "rte", "mrpc", "stsb",
    }  # fmt: skip


def test_a_task_comes_after_the_one_that_it_starts_from() -> None:
    suite = Suite(name="s", tasks=(task("a", start_from="c"), task("b"), task("c")))
    assert [each.name for each in suite.in_order()] == ["c", "a", "b"]
    assert [each.name for each in suite.only(["b", "a"]).in_order()] == ["a", "b"]
    with pytest.raises(InputError, match="task 'x': not in the suite, which has a, b, c"):
        suite.only(["x"])
    circle = Suite(name="s", tasks=(task("a", start_from="b"), task("b", start_from="a")))
    with pytest.raises(SettingsError, match="leads back to itself"):
        circle.in_order()


def test_the_ending_of_a_file_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.jsonl.xz").touch()
    assert find_table(tmp_path, "sst2/train") == tmp_path / "sst2" / "train.jsonl.xz"
    assert find_table(tmp_path, "sst2/train.jsonl.xz").name == "train.jsonl.xz"
    with pytest.raises(InputError, match="no such file, with or without a suffix"):
        find_table(tmp_path, "sst2/dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('name = "x"', "key 'tasks' is missing"),
        ('name = "x"\ntasks = []', "tasks: got none"),
        ('name="x"\n[[tasks]]\nname="a"\nkind="sing"\nmetric="m"', "expected one of 'classify'"),
        ('name="x"\n[[tasks]]\nname="a"\nkind="classify"\nmetric="m"', "'a': train is missing"),
        ('name="x"\n[[tasks]]\nname="a"\nkind="retrieve"\nmetric="m"', "'a': data is missing"),
        (
            'name="x"\n[[tasks]]\nname="a"\nkind="retrieve"\nmetric="m"\ndata="d"\ntrain="t"',
            "train does not apply to retrieve",
        ),
        (
            'name="x"\n[[tasks]]\nname="../a"\nkind="retrieve"\nmetric="m"\ndata="d"',
            "expected the name of a folder",
        ),
    ],
)
def test_suites_that_cannot_be(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "suite.toml").write_text(content)
    with pytest.raises(ModernBertError, match=message):
        read_suite(str(tmp_path / "suite.toml"))


def test_no_such_suite(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected a \.toml file, one of answers"):
        read_suite("glu")
    with pytest.raises(SettingsError, match="no such file"):
        read_suite(str(tmp_path / "none.toml"))
