"""Several positives of a query are several examples, whatever the form of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError
from modernbert.tasks.ranking.data import RankedTexts, one_answer_each, read_retrieval_data
from modernbert.tasks.ranking.examples import training_data
from modernbert.tasks.ranking.recipe import RankedRows

ANSWERS = ["first", "second", "third"]
FORMS: dict[str, list[dict[str, Any]]] = {
    "one a row": [{"query": "q", "positive": each} for each in ANSWERS],
    "a list": [{"query": "q", "positives": ANSWERS}],
    "a printed list": [{"query": "q", "positives": str(ANSWERS)}],
    "labelled rows": [{"query": "q", "document": each, "label": 1} for each in ANSWERS],
    "FlagEmbedding": [{"query": "q", "pos": ANSWERS, "neg": []}],
    "Tevatron": [
        {"query": "q", "positive_passages": [{"docid": "1", "text": each} for each in ANSWERS]}
    ],
}


def read(path: Path, rows: list[dict[str, Any]]) -> list[RankedTexts]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return one_answer_each(read_retrieval_data(path).examples)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(tmp_path: Path, form: str) -> None:
    assert read(tmp_path / "a.jsonl", FORMS[form]) == [
        RankedTexts(query="q", documents=(each,)) for each in ANSWERS
    ]


def test_each_answer_keeps_its_score_and_the_negatives(tmp_path: Path) -> None:
    row = {
        "query": "q",
        "pos": ["a", "b"],
        "neg": ["c"],
        "pos_scores": [0.9, 0.8],
        "neg_scores": [0.1],
    }
    assert read(tmp_path / "a.jsonl", [row]) == [
        RankedTexts(query="q", documents=("a", "c"), scores=(0.9, 0.1)),
        RankedTexts(query="q", documents=("b", "c"), scores=(0.8, 0.1)),
    ]
    with pytest.raises(DocumentError, match="1 scores in pos_scores and neg_scores for 3"):
        read(tmp_path / "a.jsonl", [{**row, "pos_scores": None}])


def test_titles_of_passages_stand_before_them(tmp_path: Path) -> None:
    passage = {"docid": "1", "title": "T", "text": "x"}
    row = {"query": "q", "positive_passages": [passage], "negative_passages": [{"text": "y"}]}
    assert read(tmp_path / "a.jsonl", [row])[0].documents == ("T x", "y")


def test_a_text_that_begins_with_a_bracket_is_a_text(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.jsonl", [{"query": "q", "positive": "[1] see there"}])
    assert found.documents == ("[1] see there",)
    with pytest.raises(DocumentError, match=r"column .positives.: .* cannot be read as one"):
        read(tmp_path / "a.jsonl", [{"query": "q", "positives": "[see there"}])


def test_passages_of_dpr_are_texts_and_its_answers_are_not(tmp_path: Path) -> None:
    row = {
        "question": "q",
        "answers": ["short"],
        "positive_ctxs": [{"title": "", "text": "long"}],
        "negative_ctxs": [],
        "hard_negative_ctxs": [{"title": "T", "text": "other"}],
    }
    assert read(tmp_path / "a.jsonl", [row])[0].documents == ("long", "T other")


def test_a_context_beside_answers_is_not_guessed_at(tmp_path: Path) -> None:
    row = {"question": "q", "context": "long", "answers": ["short"]}
    with pytest.raises(DocumentError, match="has both 'context' and 'answers'"):
        read(tmp_path / "a.jsonl", [row])


@pytest.mark.parametrize(
    ("text", "documents"), [("q\ta\tb\nr\tc\td\n", ("a", "b")), ("q\ta\t1\nq\tb\t0\n", ("a", "b"))]
)
def test_columns_without_names(tmp_path: Path, text: str, documents: tuple[str, ...]) -> None:
    (tmp_path / "a.tsv").write_text(text)
    found = read_retrieval_data(tmp_path / "a.tsv", settings=FileSettings(header=False))
    assert found.examples[0].documents == documents


def test_doubtful_texts_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('query,positive,negative\n"",a,b\nq,c,c\n')
    notes = " ".join(read_retrieval_data(tmp_path / "a.csv").notes)
    assert "empty texts: 1" in notes and "that is also a positive: 1" in notes


def test_queries_are_held_out_whole(tmp_path: Path) -> None:
    rows = [{"query": f"q{n // 2}", "positive": f"a{n}"} for n in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, dev = training_data(RankedRows(train=str(path), dev="10%"))
    assert dev is not None and len(dev.known) == 2 and len(dev.examples) == 4
    assert len(train.examples) == 36 and set(train.known).isdisjoint(dev.known)
    assert training_data(RankedRows(train=str(path)))[1] is None


@pytest.mark.parametrize("yes_and_no", [(True, False), ("true", "false"), (1.0, 0), ("1", "0.0")])
def test_labels_that_say_yes_or_no(tmp_path: Path, yes_and_no: tuple[Any, Any]) -> None:
    rows = zip(["a", "b"], yes_and_no, strict=True)
    (example,) = read(
        tmp_path / "a.jsonl",
        [{"query": "q", "document": text, "label": label} for text, label in rows],
    )
    assert example == RankedTexts(query="q", documents=("a", "b"))


def test_columns_that_have_no_role_are_told(tmp_path: Path) -> None:
    row = {"query": "q", "pos": ["a"], "neg": ["b"], "pos_id": ["1"], "prompt": "Find: "}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert read_retrieval_data(tmp_path / "a.jsonl").notes[0].endswith("; not used: pos_id, prompt")
