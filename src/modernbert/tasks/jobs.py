"""The kinds of fine-tuning by their verbs."""

from collections.abc import Callable
from typing import Any

from modernbert.tasks.classification import classification
from modernbert.tasks.fine_tuning_recipe import FineTuningRecipe
from modernbert.tasks.job import Job, Verb
from modernbert.tasks.question_answering import question_answering
from modernbert.tasks.regression import regression
from modernbert.tasks.tagging import tagging

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
