"""`finetune`: train a model for a purpose, which one of the verbs names."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert.data.rows.tables import head_of, write_rows
from modernbert.errors import SettingsError
from modernbert.hub import require_model
from modernbert.tasks.labels import recipe as labels
from modernbert.tasks.ranking import recipe as ranking
from modernbert.tasks.tuning.recipe import Verb

if TYPE_CHECKING:
    from modernbert.tasks.tuning.job import TuningJob
    from modernbert.tasks.tuning.recipe import TuningRecipe
    from modernbert.tasks.tuning.results import Results
    from modernbert.tasks.tuning.sweep import RunObserver


VERBS = {**labels.VERBS, **ranking.VERBS}
"""All verbs, in the order in which the command line lists them."""


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
        recipe: The verb's recipe, or the same as a mapping, as a recipe's file has it. In a
            mapping `train`, `dev` and `test` may also be data frames of pandas or polars, tables of
            pyarrow, data sets, dictionaries of columns or lists of dictionaries. They are written
            into the folder `data` of the output, where a later start finds them.
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
        recipe = parse(known.recipe_class, _with_files(recipe), where="recipe")
    with joined(recipe.computation.timeout_seconds) as group:
        job = known.open(recipe)
        if on_job is not None and group.is_first:
            on_job(job)
        return run_all(job, partial(open_job, verb, recipe), on_record or nobody, group)


def look_at(recipe: "TuningRecipe") -> None:
    """Check that the model and the rows of a recipe are there, and that the rows have its columns.

    This reads the first rows of each file and imports no torch, so that a mistyped name is told of
    at once.

    Raises:
        ModelFolderError: There is no such model.
        DocumentError: There are no such rows, or a column is missing.
    """
    require_model(recipe.model)
    for source in recipe.data.sources.values():
        head = head_of(source, recipe.data, getattr(recipe.data, "asked", ()))
        if head is not None:
            recipe.data.require_columns(head)


def open_job(verb: str, recipe: "TuningRecipe") -> "TuningJob":
    """Read, check and encode everything that a verb's recipe names.

    Raises:
        ModernBertError: Something of it cannot be used.
    """
    job: TuningJob = find_verb(verb).open(recipe)
    return job


def find_verb(name: str) -> Verb:
    """A verb by its name.

    Raises:
        SettingsError: There is none.
    """
    if name not in VERBS:
        raise SettingsError(f"verb: got {name!r}, expected one of {', '.join(VERBS)}")
    return VERBS[name]


def _with_files(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping of a recipe whose data are all named: objects of Python become files.

    Raises:
        SettingsError: There is no output beside which they could stand.
        DocumentError: An object that holds no rows.
    """
    data = recipe.get("data")
    if not isinstance(data, Mapping):
        return recipe
    given = {name: data[name] for name in ("train", "dev", "test") if data.get(name) is not None}
    files = {name: str(each) for name, each in given.items() if isinstance(each, str | Path)}
    for name in given.keys() - files.keys():
        if not isinstance(output := recipe.get("output"), str | Path):
            raise SettingsError("output: missing; expected the folder for the results")
        path = Path(output).expanduser() / "data" / f"{name}.jsonl"
        write_rows(given[name], path)
        files[name] = str(path)
    return {**recipe, "data": {**data, **files}}
