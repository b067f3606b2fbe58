"""`finetune`: train a model for a purpose; the verbs are listed here, and nowhere else.

To add a verb, write its recipe and a function that opens a `TuningJob` from it, and name both in
`VERBS`. The command line, the page, the card, sweeps and evaluation suites follow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from modernbert.errors import SettingsError

if TYPE_CHECKING:
    from modernbert.tasks.tuning.job import TuningJob
    from modernbert.tasks.tuning.recipe import RunSettings, TuningRecipe
    from modernbert.tasks.tuning.results import Results
    from modernbert.tasks.tuning.sweep import RunObserver


@dataclass(frozen=True)
class Verb:
    """One kind of fine-tuning; its modules are imported when they are needed.

    summary: What it learns, in a sentence.
    recipe: The class of its recipe, as `module:name` in this room.
    opener: The function that opens a job from a recipe, in the same way.
    """

    summary: str
    recipe: str
    opener: str

    @property
    def recipe_class(self) -> "type[TuningRecipe]":
        """The class of its recipe."""
        found: type[TuningRecipe] = _named(self.recipe)
        return found

    @property
    def training_class(self) -> "type[RunSettings]":
        """The class of the recipe's table `training`."""
        found: type[RunSettings] = get_type_hints(self.recipe_class)["training"]
        return found

    def open(self, recipe: "TuningRecipe") -> "TuningJob":
        """Read, check and encode everything that a recipe names.

        Raises:
            ModernBertError: Something of it cannot be used.
        """
        job: TuningJob = _named(self.opener)(recipe)
        return job


VERBS = {
    "classify": Verb(
        "Learn labels of texts or of pairs of texts.",
        "labels.recipe:ClassifyRecipe",
        "labels.classification:open_classify",
    ),
    "regress": Verb(
        "Learn a number for each text or pair of texts.",
        "labels.recipe:RegressRecipe",
        "labels.regression:open_regress",
    ),
    "tag": Verb(
        "Learn labels of words, such as names of persons and places.",
        "labels.recipe:TagRecipe",
        "labels.tagging:open_tag",
    ),
    "answer": Verb(
        "Learn to find the answers to questions in texts.",
        "labels.recipe:AnswerRecipe",
        "labels.question_answering:open_answer",
    ),
    "retrieve": Verb(
        "Learn one vector per text, for retrieval.",
        "ranking.recipe:RetrieveRecipe",
        "ranking.retrievers:open_retrieve",
    ),
    "late-interaction": Verb(
        "Learn one vector per token, for retrieval (ColBERT).",
        "ranking.recipe:LateInteractionRecipe",
        "ranking.retrievers:open_late_interaction",
    ),
    "sparse": Verb(
        "Learn sparse vectors over the vocabulary (SPLADE).",
        "ranking.recipe:SparseRecipe",
        "ranking.retrievers:open_sparse",
    ),
    "rerank": Verb(
        "Learn to score a query and a document together.",
        "ranking.recipe:RerankRecipe",
        "ranking.rerank:open_rerank",
    ),
}


def finetune(
    verb: str,
    recipe: "TuningRecipe | Mapping[str, Any]",
    *,
    on_job: "Callable[[TuningJob], None] | None" = None,
    on_record: "RunObserver | None" = None,
) -> "Results":
    """Train every run of a recipe, from where an earlier start has left off, and deliver the best.

    Started by torchrun, all processes call this and train each run together.

    Args:
        verb: What to learn, one of `VERBS`.
        recipe: The verb's recipe, or the same as a mapping, as a recipe's file has it.
        on_job: Told what was read, before the training, in process 0.
        on_record: Told each record of each run, by the name of the run, in process 0.

    Returns:
        The scores of all runs; the best model is in the folder `model` of the recipe's output.

    Raises:
        Interrupted: A signal came; the same call goes on.
        ModernBertError: Something in the recipe, or in what it names, cannot be used.
    """
    from modernbert.settings import parse
    from modernbert.tasks.tuning.sweep import nobody, run_all
    from modernbert.training.distributed import joined

    known = find_verb(verb)
    if isinstance(recipe, Mapping):
        recipe = parse(known.recipe_class, recipe, where="recipe")
    with joined(recipe.computation.timeout_seconds) as group:
        job = known.open(recipe)
        if on_job is not None and group.is_first:
            on_job(job)
        return run_all(job, partial(open_job, verb, recipe), on_record or nobody, group)


def open_job(verb: str, recipe: "TuningRecipe") -> "TuningJob":
    """Read, check and encode everything that a verb's recipe names.

    Raises:
        ModernBertError: Something of it cannot be used.
    """
    return find_verb(verb).open(recipe)


def find_verb(name: str) -> Verb:
    """A verb by its name.

    Raises:
        SettingsError: There is none.
    """
    if name not in VERBS:
        raise SettingsError(f"verb: got {name!r}, expected one of {', '.join(VERBS)}")
    return VERBS[name]


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"modernbert.tasks.{module}"), name)
