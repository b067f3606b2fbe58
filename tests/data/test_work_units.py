"""Units cover the corpus, and are so many that cores that share them end together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.data.corpus_files import CorpusFile
from modernbert.data.documents import FilePart, even_unit_bytes, plan_units

MEGABYTE = 1 << 20


def lines_file(index: int, num_bytes: int) -> CorpusFile:
    """An unpacked file of JSON Lines that is nowhere."""
    return CorpusFile(input="corpus", path=f"corpus/{index}.jsonl", num_bytes=num_bytes, mtime_ns=0)


@given(st.lists(st.integers(1, 300 * MEGABYTE), min_size=1, max_size=40), st.integers(2, 8))
def test_units_are_shared_out_evenly_and_miss_nothing(sizes: list[int], num_cores: int) -> None:
    files = [lines_file(index, size) for index, size in enumerate(sizes)]
    largest = even_unit_bytes(files)
    units = plan_units(files, unit_bytes=largest)
    read = [(part.file.path, part.start, part.stop) for unit in units for part in unit.parts]
    for file in files:
        ranges = sorted((a, b or file.num_bytes) for path, a, b in read if path == file.path)
        assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])]
        assert ranges[-1][1] == file.num_bytes

    loads = [0] * num_cores
    for unit in sorted(units, key=lambda unit: -unit.num_bytes):
        loads[loads.index(min(loads))] += unit.num_bytes
    assert max(loads) - min(loads) <= largest <= max(2 * MEGABYTE, sum(sizes) // 64)


def test_a_corpus_of_some_hundred_megabytes_keeps_all_cores_at_work() -> None:
    """Of 200 MB in large units, a quarter of the time would be one core's alone."""
    file = lines_file(0, 200 * MEGABYTE)
    assert len(plan_units([file], unit_bytes=even_unit_bytes([file]))) >= 60


def test_planning_looks_at_each_small_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a folder of many files takes a time that grows with their number's square."""
    measured: list[str] = []

    def measure(part: FilePart) -> int:
        measured.append(part.file.path)
        return part.num_bytes

    monkeypatch.setattr(FilePart, "expected_text_bytes", property(measure))
    files = [lines_file(index, 100) for index in range(1000)]
    (unit,) = plan_units(files, unit_bytes=MEGABYTE)
    assert [part.file for part in unit.parts] == files
    assert len(measured) == len(files)
