"""Groups: what processes tell each other, and what the others say when one is lost."""

import re

import pytest
import torch
from tests.processes import Ended, results, run_together
from tests.training import groups

from modernbert.errors import SettingsError
from modernbert.training.distributed import ALONE, Group, joined


def test_processes_speak_with_each_other() -> None:
    answers = results(run_together(groups.talk, 3))
    for rank, answer in enumerate(answers):
        assert answer["place"] == [rank, 3, rank == 0, "cpu"]
        assert answer["rows"] == [[0.0, 0.25], [1.0, 0.25], [2.0, 0.25]]
        assert answer["sums"] == [[6.0], [60.0], [4.5], [3.0], [6.0], [3.0]]
        assert answer["spread"] == [0.0]
        assert answer["first"] == {"rank": 0, "text": "é"}
        assert answer["part"] == [[0, 3], [1, 4], [2]][rank]


def test_one_process_alone_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tensor = torch.ones(2)
    with joined() as group:
        assert (group.rank, group.size) == (0, 1)
        group.sum([tensor])
        group.broadcast(tensor)
        assert tensor.tolist() == [1, 1]
        assert group.gather([1, 2]) == [[1, 2]]
        assert group.first(lambda: "done") == "done"
        group.agree("recipe", "any")
    assert not torch.distributed.is_initialized()
    assert list(ALONE.part(3)) == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_everything_once(size: int) -> None:
    parts = [Group(rank=rank, size=size).part(5) for rank in range(size)]
    assert sorted(index for part in parts for index in part) == [0, 1, 2, 3, 4]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(SettingsError, match=r"WORLD_SIZE is 2, but RANK is not set; .*torchrun"),
        joined(),
    ):
        pass


def test_an_error_of_the_first_is_told_to_all() -> None:
    first, second = run_together(groups.fail_in_the_first, 2)
    assert first.error == "RunError: the folder is taken"
    assert second.error == "ProcessError: process 0 cannot continue: the folder is taken"


def test_processes_with_different_recipes_stop() -> None:
    for ended in run_together(groups.disagree, 2):
        assert ended.error.startswith("ProcessError: recipe: differs between process 1 and")


@pytest.mark.parametrize(
    ("who", "how", "message"),
    [
        (1, "killed", "ProcessError: process 1 is gone; run the same command again"),
        (1, "fails", "ProcessError: process 1 cannot go on: a shard is torn"),
        (1, "hangs", "ProcessError: process 1 did not come within 1 s; run the same command"),
        (0, "killed", "ProcessError: process 0"),
    ],
)
def test_a_lost_process_is_named(who: int, how: str, message: str) -> None:
    ended = run_together(groups.lose, 2, who, how, 1.0)
    other: Ended = ended[1 - who]
    assert other.exit_code == 2
    # It is named with its id and its host, so that one finds it.
    assert re.sub(r" \(id \d+ on [^)]+\)", "", other.error).startswith(message), other.error
