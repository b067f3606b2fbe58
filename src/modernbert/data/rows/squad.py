"""Questions in the nested format of SQuAD, one a row.

{"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers"}]}]}]}
"""

from collections.abc import Iterator, Sequence
from typing import Any

from modernbert.data.rows.cells import shown
from modernbert.errors import DocumentError


def questions_of(articles: Sequence[Any], source: str) -> list[dict[str, Any]] | None:
    """The questions, each with its context; None where the articles are not SQuAD's.

    A question without `answers` gives a row without them: one to be answered.

    Raises:
        DocumentError: a paragraph without a context or questions, or none at all, with its place.
    """
    if not any(isinstance(each, dict) and "paragraphs" in each for each in articles):
        return None
    rows = [
        row
        for number, article in enumerate(articles, start=1)
        for row in _of_article(article, f"{source}, article {number}")
    ]
    if not rows:
        raise DocumentError(f"{source}: SQuAD's format without a question; nothing can be read")
    return rows


def _of_article(article: Any, where: str) -> Iterator[dict[str, Any]]:
    paragraphs = _part(article, "paragraphs", list, where)
    for number, paragraph in enumerate(paragraphs, start=1):
        place = f"{where}, paragraph {number}"
        questions = _part(paragraph, "qas", list, place)
        context = _part(paragraph, "context", str, place) if questions else ""
        for index, question in enumerate(questions, start=1):
            yield _row(question, context, f"{place}, question {index}")


def _row(question: Any, context: str, where: str) -> dict[str, Any]:
    text = _part(question, "question", str, where)
    row = {"id": question["id"]} if "id" in question else {}
    row |= {"question": text, "context": context}
    if question.get("is_impossible"):
        return {**row, "answers": []}
    return {**row, "answers": question["answers"]} if "answers" in question else row


def _part(value: Any, key: str, kind: type, where: str) -> Any:
    """What stands at a key.

    Raises:
        DocumentError: there is nothing of the kind.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        expected = "a list" if kind is list else "a text"
        raise DocumentError(
            f"{where}: got {shown(found)} for {key!r}, expected {expected}; add it or leave the "
            "part out"
        )
    return found
