"""Token files of datatrove become shards: every document once, nothing of what is around it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.prepare_runner import SPECIAL, byte_tokenizer

from modernbert.data import prepare as prepare_module
from modernbert.data.prepare import PrepareResult, import_datatrove
from modernbert.data.settings import PrepareSettings
from modernbert.data.shards import ShardFolder
from modernbert.errors import DocumentError, InputError

CLS, SEP, MASK, END = SPECIAL.cls, SPECIAL.sep, SPECIAL.mask, 7


def write(path: Path, documents: Sequence[Sequence[int]], dtype: str = "<u2") -> None:
    """As datatrove does."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(np.array([i for each in documents for i in each], dtype=dtype).tobytes())
    ends = np.cumsum([len(each) for each in documents])
    Path(f"{path}.index").write_bytes(ends.astype("<u8").tobytes())
    Path(f"{path}.metadata").write_text("tokenizer.json|2\n1\n1T")


def run(folder: Path, output: Path, **changes: Any) -> PrepareResult:
    given: dict[str, Any] = {
        "reencode": lambda ids: ids,
        "end_token_id": None,
        "tokenizer": byte_tokenizer(),
    }
    return import_datatrove([folder], output, **{**given, **changes})


def documents_of(folder: ShardFolder) -> list[list[int]]:
    return [
        shard.tokens[begin:end].tolist()
        for shard in folder.shards
        for begin, end in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("run_tokens", [1, 1000])
def test_every_document_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, run_tokens: int
) -> None:
    monkeypatch.setattr(prepare_module, "RUN_TOKENS", run_tokens)
    documents = [[10 + number] * (number % 5 + 1) for number in range(60)]
    write(tmp_path / "in" / "00000.ds", documents[:40], dtype)
    write(tmp_path / "in" / "00001.ds", documents[40:], dtype)
    result = run(tmp_path / "in", tmp_path / "out", settings=PrepareSettings(held_out=0.1))
    assert result.held_out is not None and result.held_out.num_documents == 6
    found = documents_of(result.train) + documents_of(result.held_out)
    assert sorted(found) == sorted(documents) and found != documents
    assert run(tmp_path / "in", tmp_path / "out", settings=PrepareSettings(held_out=0.1)) == (
        PrepareResult(
            train=result.train,
            held_out=result.held_out,
            skipped=result.skipped,
            already_finished=True,
        )
    )


def test_what_stands_around_a_document_goes(tmp_path: Path) -> None:
    given = [[CLS, 10, 11, SEP], [12, SEP], [13, END], [CLS, 14, SEP, END], [15]]
    write(tmp_path / "in" / "a.ds", given)
    found = documents_of(run(tmp_path / "in", tmp_path / "out", end_token_id=END).train)
    assert sorted(found) == [[10, 11], [12], [13], [14], [15]]


def test_what_holds_nothing_or_special_tokens_is_skipped(tmp_path: Path) -> None:
    given = [[10], [CLS, SEP], [11, MASK, 12], [13], [], [14, SEP, 15]]
    write(tmp_path / "in" / "a.ds", given)
    result = run(tmp_path / "in", tmp_path / "out")
    assert sorted(documents_of(result.train)) == [[10], [13]]
    assert result.skipped.counts == {"no tokens": 2, "special tokens within the text": 2}
    with pytest.raises(DocumentError, match=r"a\.ds, document 2: no tokens"):
        run(tmp_path / "in", tmp_path / "strict", settings=PrepareSettings(strict=True))


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.ds", [[10, 11], [12], [13]])
    with pytest.raises(InputError, match=r"a\.ds: 3 of 3 documents have other ids"):
        run(tmp_path / "in", tmp_path / "out", reencode=lambda ids: [*ids, 1])
    write(tmp_path / "in" / "a.ds", [[10, 11], [300]])
    with pytest.raises(InputError, match="document 2: token id 300 is outside the vocabulary"):
        run(tmp_path / "in", tmp_path / "out2")


@pytest.mark.parametrize("change", ["no index", "cut tokens", "cut index", "descending"])
def test_files_that_do_not_fit_each_other(tmp_path: Path, change: str) -> None:
    file = tmp_path / "in" / "a.ds"
    write(file, [[10, 11], [12], [13]])
    index = Path(f"{file}.index")
    if change == "no index":
        index.unlink()
    elif change == "cut tokens":
        file.write_bytes(file.read_bytes()[:-2])
    elif change == "cut index":
        index.write_bytes(index.read_bytes()[:-8])
    else:
        index.write_bytes(np.array([3, 2, 4], dtype="<u8").tobytes())
    with pytest.raises(DocumentError, match=r"a\.ds: "):
        run(tmp_path / "in", tmp_path / "out")


def test_a_folder_without_token_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("text")
    with pytest.raises(DocumentError, match=r"no token files of datatrove"):
        run(tmp_path / "in", tmp_path / "out")
