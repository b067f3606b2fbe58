"""`finetune`: train a model for a purpose, which one of the verbs names."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert.data.rows.tables import head_of, write_rows
from modernbert.errors import SettingsError
from modernbert.hub import require_model
from modernbert.overrides import overridden
from modernbert.settings import load_mapping, parse, to_mapping
from modernbert.tasks.labels import recipe as labels
from modernbert.tasks.ranking import recipe as ranking
from modernbert.tasks.tuning.recipe import TuningRecipe, Verb

if TYPE_CHECKING:
    from modernbert.tasks.tuning.job import Results, TuningJob
    from modernbert.tasks.tuning.sweep import RunObserver


VERBS = {**labels.VERBS, **ranking.VERBS}
"""All verbs, in the order in which the command line lists them."""


SWEPT = {
    "epochs": "sweep.epochs",
    "learning_rate": "sweep.learning_rates",
    "weight_decay": "sweep.weight_decays",
}
"""Settings of which a list of values makes a sweep, and where that stands in a recipe."""

_SPLITS = ("train", "dev", "test")


def finetune(
    verb: str,
    recipe: TuningRecipe | Mapping[str, Any] | Path | str | None = None,
    *,
    on_job: "Callable[[TuningJob], None] | None" = None,
    on_record: "RunObserver | None" = None,
    **options: Any,
) -> "Results":
    """Train every run of a recipe, from where an earlier start has left off, and deliver the best.

    Started by torchrun, all processes call this and train each run together.

    Args:
        verb: What to learn, one of `VERBS`.
        recipe: The verb's recipe, the same as a mapping, or its file.
        on_job: Told what was read, before the training, in process 0.
        on_record: Told each record of each run, by the name of the run, in process 0.
        **options: Settings of the recipe by name, such as `model`, `train` and `epochs`, in place
            of its own; see `overrides`. A list for one of `SWEPT`, or a number of `seeds`, makes a
            sweep. `train`, `dev` and `test` may be data frames of pandas or polars, tables of
            pyarrow, data sets, dictionaries of columns or lists of dictionaries. They are written
            into the folder `data` of the output, where a later start finds them.

    Returns:
        The scores of all runs; the best model is in the folder `model` of the recipe's output.

    Raises:
        Interrupted: A signal came; the same call goes on.
        ModernBertError: Something in the recipe, or in what it names, cannot be used.
    """
    from modernbert.tasks.tuning.sweep import nobody, run_all
    from modernbert.training.distributed import joined

    settings = read_recipe(verb, recipe, options)
    with joined(settings.computation.timeout_seconds) as group:
        job = open_job(verb, settings)
        if on_job is not None and group.is_first:
            on_job(job)
        return run_all(job, partial(open_job, verb, settings), on_record or nobody, group)


def read_recipe(
    verb: str,
    recipe: TuningRecipe | Mapping[str, Any] | Path | str | None,
    options: Mapping[str, Any],
) -> TuningRecipe:
    """Read a recipe, with other values in place of its own; see `finetune`.

    Raises:
        ModernBertError: Something in the recipe or the options cannot be used.
    """
    recipe_class, where = find_verb(verb).recipe_class, "recipe"
    if isinstance(recipe, recipe_class) and not options:
        return recipe
    if isinstance(recipe, Path | str):
        where, mapping = str(recipe), load_mapping(recipe)
    else:
        mapping = dict(to_mapping(recipe) if isinstance(recipe, TuningRecipe) else recipe or {})
    objects, values = _python_data(mapping, options), dict(options)
    for name in objects.keys() & values.keys():
        del values[name]
    for name in SWEPT.keys() & values.keys():
        if isinstance(values[name], list | tuple):
            values[SWEPT[name]] = values.pop(name)
    if isinstance(seeds := values.get("seeds"), int):
        values["seeds"] = list(range(seeds))
    changed = overridden(mapping, values, recipe_class)
    if objects:
        changed["data"] = {**changed.get("data", {}), **_written(objects, changed.get("output"))}
    return parse(recipe_class, _with_output(verb, changed), where=where)


def _python_data(mapping: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The data that are objects of Python; they are removed from the mapping."""
    table = mapping.get("data")
    data = dict(table) if isinstance(table, Mapping) else {}
    given = {**data, **{name: options[name] for name in _SPLITS if name in options}}
    objects = {
        name: given[name]
        for name in _SPLITS
        if given.get(name) is not None and not isinstance(given[name], str | Path)
    }
    if objects and data:
        mapping["data"] = {name: each for name, each in data.items() if name not in objects}
    return objects


def _written(objects: Mapping[str, Any], output: Any) -> dict[str, str]:
    """The files of data that are objects of Python.

    Raises:
        SettingsError: There is no output beside which they could stand.
        DocumentError: An object that holds no rows.
    """
    if not isinstance(output, str | Path):
        raise SettingsError("output: missing; expected the folder for the results")
    paths = {name: Path(output).expanduser() / "data" / f"{name}.jsonl" for name in objects}
    for name, path in paths.items():
        write_rows(objects[name], path)
    return {name: str(path) for name, path in paths.items()}


def _with_output(verb: str, mapping: dict[str, Any]) -> dict[str, Any]:
    """The mapping with a folder for the results where it names rows but none."""
    train = (mapping.get("data") or {}).get("train")
    if mapping.get("output") is None and isinstance(train, str):
        return {**mapping, "output": default_output(verb, train)}
    return mapping


def default_output(verb: str, train: str) -> str:
    """Return the folder for the results where none is named."""
    return f"runs/{verb}-{Path(train).name.split('.')[0]}"


def look_at(recipe: TuningRecipe) -> None:
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


def open_job(verb: str, recipe: TuningRecipe) -> "TuningJob":
    """Read, check and encode everything that a verb's recipe names.

    Raises:
        ModernBertError: Something that it names cannot be used.
    """
    job: TuningJob = find_verb(verb).open(recipe)
    return job


def find_verb(name: str) -> Verb:
    """Return a verb by its name.

    Raises:
        SettingsError: There is none.
    """
    if name not in VERBS:
        raise SettingsError(f"verb: got {name!r}, expected one of {', '.join(VERBS)}")
    return VERBS[name]
