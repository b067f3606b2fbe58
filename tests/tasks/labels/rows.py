"""Rows to learn from, for each verb that learns labels."""

from typing import Any

from tests.tasks.labels import labelled


def rows_for(verb: str) -> list[dict[str, Any]]:
    rows = labelled.reviews(24)
    if verb == "regress":
        return [{"text": r["text"], "score": float(r["label"] == "good")} for r in rows]
    if verb == "tag":
        words = [row["text"].split() for row in rows]
        marks = {"good": "B-GOOD", "bad": "B-BAD"}
        return [
            {
                "tokens": each,
                "tags": [
                    marks[row["label"]] if w in labelled.GOOD + labelled.BAD else "O" for w in each
                ],
            }
            for each, row in zip(words, rows, strict=True)
        ]
    if verb == "answer":
        return [
            {
                "question": "how was it",
                "context": row["text"],
                "answers": [
                    {"text": word, "answer_start": row["text"].index(word)}
                    for word in row["text"].split()
                    if word in labelled.GOOD
                ],
            }
            for row in rows
        ]
    return rows
