"""Rows that cannot be learnt from: each is refused in one line that names the row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.labels import labelled

from modernbert.errors import ConfigError, InputError, ModernBertError
from modernbert.tasks.finetune import open_job
from modernbert.tasks.labels.multi_label import MultiLabelledText

TEXT = {"text": "a film"}
ANSWER = {"question": "how", "context": "it was good"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.write_model(tmp_path_factory.mktemp("model"))


Open = Callable[..., Any]


@pytest.fixture
def opened(model: Path, tmp_path: Path) -> Open:
    def open_(verb: Any, train: list[Any], dev: list[Any] | None = None, **changes: Any) -> Any:
        train_path = labelled.write_rows(tmp_path / "train.jsonl", train)
        dev_path = labelled.write_rows(tmp_path / "dev.jsonl", dev) if dev else None
        return open_job(
            verb,
            labelled.recipe(model, tmp_path / "run", train_path, dev_path, verb=verb, **changes),
        )

    return open_


def labels(*values: Any) -> list[dict[str, Any]]:
    return [{**TEXT, "label": value} for value in values]


def tags(words: Any, marks: Any) -> list[dict[str, Any]]:
    return [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}, {"tokens": words, "tags": marks}]


BAD: dict[str, tuple[str, list[Any], list[Any] | None, str]] = {
    "only in dev": (
        "classify",
        labels("a", "b"),
        labels("a", "c"),
        r"dev\.jsonl, row 2: label 'c' does not occur in the training data, which have 'a', 'b'",
    ),
    "one class": ("classify", labels("a", "a"), None, r"every row has the label 'a'; expected two"),
    "mixed": (
        "classify",
        labels("a", 1),
        None,
        r"row 2: label 1 is a number, but 'a' in row 1 is a text; write all labels alike",
    ),
    "no label": ("classify", labels("a", None), None, r"row 2: column 'label': got nothing"),
    "fraction": ("classify", labels(0.5, 1.0), None, r"row 1: label 0\.5 .* finetune regress"),
    "no text": (
        "classify",
        [{"text": None, "label": 1}, {**TEXT, "label": 2}],
        None,
        r"row 1: column 'text': got noth",
    ),
    "no column": (
        "classify",
        [{"txt": "a", "label": "b"}, {"txt": "a", "label": "c"}],
        None,
        r"did you mean 'txt'\?",
    ),
    "no label column": ("classify", [{**TEXT, "lable": "b"}], None, r"did you mean 'lable'\?"),
    "ids": (
        "classify",
        [{**TEXT, "id": 1, "label": "a"}, {**TEXT, "id": 1, "label": "b"}],
        None,
        r"row 2: has the id 1 of row 1; ids in column 'id' must differ",
    ),
    "list": ("classify", labels(["a"], "b"), None, r"row 2: .* expected a list of labels"),
    "list in dev": (
        "classify",
        labels(["a"], ["b"]),
        labels(["c"]),
        r"dev\.jsonl, row 1: label 'c' does not occur",
    ),
    "nan": (
        "regress",
        labels(1.0, float("nan")),
        None,
        r"row 2: column 'label': the score is nan; correct it",
    ),
    "no number": ("regress", labels(1.0, "good"), None, r"row 2: .* got 'good', expected a number"),
    "constant": ("regress", labels(2, 2), None, r"every row has the score 2"),
    "unequal": ("tag", tags(["a"], ["O", "O"]), None, r"row 2: has 1 words in 'tokens' and 2 tags"),
    "no list": ("tag", tags(3, ["O"]), None, r"row 2: column 'tokens': got 3, expected a list"),
    "no words": (
        "tag",
        tags([1], ["O"]),
        None,
        r"row 2: column 'tokens': word 1 is 1, expected a text",
    ),
    "offset": (
        "answer",
        [{**ANSWER, "answers": [{"text": "good", "answer_start": 3}]}],
        None,
        r"row 1: the answer 'good' does not begin at 3 .* has 'was ' there; it begins at 7",
    ),
    "format": ("answer", [{**ANSWER, "answers": ["good"]}], None, r"row 1: got the answers"),
    "no answer": ("answer", [{**ANSWER, "answers": []}], None, r"no question has an answer"),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_that_cannot_be_learnt_from(case: str, opened: Open) -> None:
    verb, train, dev, message = BAD[case]
    with pytest.raises(ModernBertError, match=message) as raised:
        opened(verb, train, dev)
    assert "\n" not in str(raised.value)


def test_what_was_cut_or_empty_is_said_once(opened: Open) -> None:
    rows = [{"text": "the film " * 60, "label": "a"}, {"text": "", "label": "b"}] * 3
    job = opened("classify", rows, rows)
    assert [note.split(": ")[1] for note in job.notes] == [
        "3 of 6 texts are longer than 64 tokens and are cut there",
        "3 of 6 texts are empty",
    ] * 2
    assert max(len(each.token_ids) for each in job.objective.train) == 64
    assert min(len(each.token_ids) for each in job.objective.train) == 2


def test_labels_are_in_a_lasting_order(opened: Open) -> None:
    assert opened("classify", labels("10", "9", "2")).objective.criterion.labels == ("2", "9", "10")
    assert opened("classify", labels(True, False)).objective.criterion.labels == ("false", "true")
    assert opened("classify", labels("b", " a ", "a")).objective.criterion.labels == ("a", "b")
    assert opened("tag", tags(["c"], ["I-X"])).objective.criterion.labels == ("O", "B-X", "I-X")


def test_pairs_are_found_and_can_be_asked_for(opened: Open) -> None:
    rows = [{"premise": "a film", "hypothesis": "a story", "label": n} for n in "ab"]
    pair = opened("classify", rows)
    assert pair.facts["texts"] == "premise and hypothesis"
    alone = opened("classify", rows, data__text="hypothesis")
    assert alone.facts["texts"] == "hypothesis"
    assert len(pair.objective.train[0].token_ids) > len(alone.objective.train[0].token_ids)


def test_any_number_of_labels(opened: Open) -> None:
    listed = opened("classify", labels(["x", "y"], [], ["y"]))
    split = opened("classify", labels("x|y", "", "y"), data__label_separator="|")
    columns = opened(
        "classify",
        [{**TEXT, "x": x, "y": y} for x, y in ((1, 1), (0, 0), (0, 1))],
        data__label=["x", "y"],
    )
    for job in (listed, split, columns):
        assert [example.labels for example in job.objective.train] == [(0, 1), (), (1,)]
        assert all(isinstance(example, MultiLabelledText) for example in job.objective.train)
        assert job.facts["labels"] == {"x": 1, "y": 2}
    with pytest.raises(InputError, match=r"row 1: column 'x': got 2, expected 0 or 1"):
        opened("classify", [{**TEXT, "x": 2, "y": 0}], data__label=["x", "y"])


def test_balanced_weights_let_labels_count_alike(opened: Open) -> None:
    job = opened("classify", labels("a", "a", "a", "b"), training__class_weights="balanced")
    assert job.objective.criterion.weights.tolist() == pytest.approx([4 / 6, 2])


def test_words_of_a_text_are_split_at_blanks(opened: Open) -> None:
    job = opened("tag", [{"tokens": "a fine film", "tags": "O B-X O"}])
    assert [len(each.first_tokens) for each in job.objective.train] == [3]
    assert job.objective.train[0].labels == [0, 1, 0]


def test_answers_in_windows(opened: Open) -> None:
    context = "the film was a story of seven people " * 20 + "and good"
    start = context.index("good")
    forms = [
        [{"text": "good", "answer_start": start}],
        {"text": ["good"], "answer_start": [start]},
        [{"text": " good", "start": start - 1}],
    ]
    for form in forms:
        job = opened("answer", [{"question": "how", "context": context, "answers": form}])
        windows = job.objective.train
        assert len(windows) > 2
        assert [each.end for each in windows[:-1]] == [0] * (len(windows) - 1)
        last = windows[-1]
        spans = last.window.spans
        first, final = last.start - last.window.first, last.end - last.window.first
        assert context[spans[first][0] : spans[final][1]] == "good"


def test_a_model_that_is_none(tmp_path: Path, model: Path) -> None:
    train = labelled.write_rows(tmp_path / "train.jsonl", labels("a", "b"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="got 'bert', expected 'modernbert'"):
        open_job("classify", labelled.recipe(tmp_path / "bert", tmp_path / "run", train))
    with pytest.raises(InputError, match=r"^max_seqlen: got 65, expected 4 to 64"):
        open_job("classify", labelled.recipe(model, tmp_path / "run", train, data__max_seqlen=65))


def labels_of(job: Any) -> list[tuple[int, ...]]:
    return [example.labels for example in job.objective.splits["train"].examples]


MANY_LABELS: dict[str, tuple[list[dict[str, Any]], dict[str, int]]] = {
    "lists": ([{"labels": ["y", "x"]}, {"labels": ["y"]}], {"x": 1, "y": 2}),
    "printed lists": ([{"labels": "['y', 'x']"}, {"labels": "['y']"}], {"x": 1, "y": 2}),
    "as NumPy prints them": ([{"labels": "['y' 'x']"}, {"labels": "['y']"}], {"x": 1, "y": 2}),
    "vectors of flags": ([{"labels": [1, 1]}, {"labels": [0, 1]}], {"0": 1, "1": 2}),
    "printed vectors": ([{"labels": "[1. 1.]"}, {"labels": "[0. 1.]"}], {"0": 1, "1": 2}),
    "columns of flags": ([{"x": 1.0, "y": "1.0"}, {"x": False, "y": 1}], {"x": 1, "y": 2}),
}


@pytest.mark.parametrize("case", MANY_LABELS)
def test_any_number_of_labels_in_any_form(opened: Open, case: str) -> None:
    rows, counts = MANY_LABELS[case]
    job = opened("classify", [{**TEXT, **row} for row in rows])
    assert job.facts["labels"] == counts
    assert labels_of(job) == [(0, 1), (1,)]


def test_a_list_of_labels_that_cannot_be_read_is_refused(opened: Open) -> None:
    with pytest.raises(InputError, match=r"row 2: column 'labels': .*looks like a list"):
        opened("classify", [{**TEXT, "labels": each} for each in ("['x']", "[x y]")])


@pytest.mark.parametrize("values", [("1", "1.0", "2"), (1, 1.0, 2), ("1.00", "1.", "2.0")])
def test_a_whole_number_is_one_label(opened: Open, values: tuple[Any, ...]) -> None:
    assert opened("classify", labels(*values)).facts["labels"] == {"1": 2, "2": 1}


def test_versions_are_texts(opened: Open) -> None:
    job = opened("classify", labels("1.0", "1", "beta"))
    assert job.facts["labels"] == {"1": 1, "1.0": 1, "beta": 1}


def test_numbers_with_decimal_commas(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;score\na;0,5\nb;1,0\n")
    recipe = labelled.recipe(model, tmp_path / "run", tmp_path / "a.csv", None, verb="regress")
    job = open_job("regress", recipe)
    assert [each.score for each in job.objective.splits["train"].examples] == [0.5, 1.0]
    assert "semicolon-separated" in job.splits["train"]
    (tmp_path / "a.csv").write_text("text,score\na,1_0\nb,1.0\n")
    with pytest.raises(InputError, match=r"row 1: column 'score': got '1_0', expected a number"):
        open_job("regress", recipe)


TAGGED: dict[str, dict[str, Any]] = {
    "printed": {"tokens": "['Ada', 'lives', '.']", "ner_tags": '["B-PER", "O", "O"]'},
    "as NumPy prints them": {"tokens": "['Ada' 'lives' '.']", "tags": "['B-PER' 'O' 'O']"},
    "spans": {"text": "Ada lives.", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
    "printed spans": {"text": "Ada lives.", "entities": "[{'start': 0, 'end': 3, 'label': 'PER'}]"},
    "doccano": {"text": "Ada lives.", "label": [[0, 3, "PER"]]},
    "offsets": {
        "text": "Ada lives.",
        "entities": [{"start_offset": 0, "end_offset": 3, "label": "PER"}],
    },
    "other numbers": {
        "text": "Ada lives.",
        "entities": [{"start": 0.0, "end": "3", "label": "PER"}],
    },
    "gliner": {"tokenized_text": ["Ada", "lives", "."], "ner": [[0, 0, "PER"]]},
}


@pytest.mark.parametrize("case", TAGGED)
def test_entities_in_any_form(opened: Open, case: str) -> None:
    job = opened("tag", [TAGGED[case]])
    assert job.facts["labels"] == {"O": 2, "B-PER": 1}
    assert job.objective.splits["train"].shown == ["Ada lives ."]


BAD_TAGS: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"tokens": "[Ada lives]", "tags": "[O O]"}, "row 1: column 'tags': .*looks like"),
    "outside": ({"text": "Ada", "entities": [[0, 9, "X"]]}, r"row 1: the span 0 to 9 \(X\) does n"),
    "overlap": ({"text": "Ada x", "entities": [[0, 4, "X"], [2, 5, "Y"]]}, "row 1: .* overlap"),
    "no label": ({"text": "Ada", "entities": [{"start": 0, "end": 3}]}, "row 1: got the span"),
    "a blank": (
        {"text": "Ada x", "entities": [[3, 4, "X"]]},
        r"row 1: .*\(X\) holds no word but ' '",
    ),
    "marks behind": (
        {"tokens": ["a", "b", "c"], "tags": ["PER-B", "PER-I", "O"]},
        "tags such as 'PER-B' would not be joined to entities; write the mark first",
    ),
    "an underscore": (
        {"tokens": ["a", "b", "c"], "tags": ["B_PER", "I_PER", "O"]},
        "tags such as 'B_PER' would not be joined",
    ),
}


@pytest.mark.parametrize("case", BAD_TAGS)
def test_entities_that_cannot_be(opened: Open, case: str) -> None:
    row, message = BAD_TAGS[case]
    with pytest.raises(InputError, match=message):
        opened("tag", [row])


@pytest.mark.parametrize(
    "answers",
    [
        [],
        None,
        {"text": [], "answer_start": []},
        {"text": [""], "answer_start": [-1]},
        [{"text": "", "answer_start": -1}],
        [{"text": "", "answer_start": -1.0}],
        "{'text': array([], dtype=object), 'answer_start': array([], dtype=int32)}",
    ],
)
def test_no_answer_in_any_form(opened: Open, answers: Any) -> None:
    answered = {**ANSWER, "answers": [{"text": "good", "answer_start": 7}]}
    job = opened("answer", [answered, {**ANSWER, "answers": answers}])
    assert job.facts["without an answer"] == 1


@pytest.mark.parametrize(
    ("verb", "rows", "message"),
    [
        (
            "classify",
            [{**TEXT, "labels": [1, 0, 1]}, {**TEXT, "labels": [1, 0]}],
            "row 2: column 'labels': has 2 flags of labels, and row 1 has 3",
        ),
        ("tag", tags(["a", ""], ["O", "O"]), "row 2: column 'tokens': word 2 is ''"),
        ("tag", tags(["a", "b"], ["O", None]), "row 2, value 2: column 'tags': got nothing"),
        (
            "tag",
            [{"tokens": "Ada", "tags": "B-PER"}, {"tokens": "lives", "tags": "O"}],
            "each of its 2 rows has one word; give one sentence per row",
        ),
    ],
)
def test_rows_that_mean_something_else(
    opened: Open, verb: str, rows: list[Any], message: str
) -> None:
    with pytest.raises(ModernBertError, match=message):
        opened(verb, rows)


def test_labels_that_are_joined_are_noted(opened: Open) -> None:
    assert any(
        "--label-separator '|'" in note for note in opened("classify", labels("a", "a|b")).notes
    )


def test_labels_that_differ_in_capitals_are_noted(opened: Open) -> None:
    notes = opened("classify", labels("No", "no", "yes")).notes
    assert any("labels 'No' and 'no' differ in capitals alone" in note for note in notes)


def test_labels_that_are_one_number_have_one_order(opened: Open) -> None:
    job = opened("classify", labels("7", "007", "07"))
    assert list(job.facts["labels"]) == ["007", "07", "7"]


def test_a_share_of_the_rows_is_held_out(opened: Open) -> None:
    rows = [{"text": f"a film {n}", "label": "ab"[n % 2]} for n in range(40)]
    job = opened("classify", rows, data__dev="10%")
    assert "36 examples" in job.splits["train"] and "without the 10%" in job.splits["train"]
    assert "4 examples" in job.splits["dev"] and "10% of it" in job.splits["dev"]
    assert [each.label for each in job.objective.splits["dev"].examples].count(0) == 2
    assert job.fingerprint == opened("classify", rows, data__dev="10%").fingerprint
    with pytest.raises(InputError, match=r"train\.jsonl, row 41: column 'label': got nothing"):
        opened("classify", [*rows, {"text": "b", "label": None}], data__dev="10%")


def test_a_share_of_less_than_a_row_is_refused(opened: Open) -> None:
    with pytest.raises(InputError, match="--dev 1%: is less than one row"):
        opened("classify", labels("a", "b"), data__dev="1%")


def test_questions_about_one_context_stay_together(opened: Open) -> None:
    rows = [
        {"question": q, "context": f"it was {c}", "answers": [{"text": "it", "answer_start": 0}]}
        for c in "abcdefghij"
        for q in ("how", "what")
    ]
    job = opened("answer", rows, data__dev="20%")
    contexts = [each.row.context for each in job.objective.splits["dev"].examples]
    assert len(contexts) == 4 and len(set(contexts)) == 2
