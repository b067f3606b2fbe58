"""The kinds of fine-tuning by their verbs."""

from collections.abc import Callable
from typing import Any

from modernbert.tasks.labels.classification import classification
from modernbert.tasks.labels.job import Job, Verb
from modernbert.tasks.labels.question_answering import question_answering
from modernbert.tasks.labels.recipe import FineTuningRecipe
from modernbert.tasks.labels.regression import regression
from modernbert.tasks.labels.tagging import tagging

_OPENERS: dict[Verb, Callable[[FineTuningRecipe], Job[Any]]] = {
    "classify": classification,
    "regress": regression,
    "tag": tagging,
    "answer": question_answering,
}


def open_job(verb: Verb, recipe: FineTuningRecipe) -> Job[Any]:
    """Read, check and encode all that a recipe names.

    Raises:
        ModernBertError: something of it cannot be used; see `Source.open`.
    """
    return _OPENERS[verb](recipe)
