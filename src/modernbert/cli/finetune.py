"""`modernbert finetune`: trains a model for a task; one verb per task."""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from modernbert.cli.finetune_progress import report, tell_of_job
from modernbert.cli.options import AsJson, example
from modernbert.cli.settings_options import SettingOption, options_of, settings_of
from modernbert.errors import SettingsError
from modernbert.settings import load_mapping
from modernbert.tasks.finetune import VERBS, Verb

app = typer.Typer(
    help="Fine-tune a model on labelled rows or on queries and documents.",
    epilog=example("finetune classify -m runs/mine/model --train train.csv --dev dev.csv"),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_HELP = """{summary}

Progress goes to stderr, and the folder of the finished model to stdout. You can stop the training
at any moment: the same command continues it. To train on several GPUs, start it with torchrun.
"""

# Given more than once, these make a sweep of several runs: where their values go then.
_SWEPT = {
    ("training", "epochs"): "epochs",
    ("training", "learning_rate"): "learning_rates",
    ("training", "weight_decay"): "weight_decays",
}

RecipeFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RECIPE.toml]",
        help="A recipe; options take precedence over its values.",
        show_default=False,
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Train this many runs, with seeds 0, 1, ...", show_default="1"),
]


def _command(name: str, verb: Verb) -> Any:
    """The command of a verb, with an option for each field of its recipe."""
    options = [_optional(each) for each in options_of(verb.recipe_class)]

    def command(recipe: Path | None, seeds: int | None, as_json: bool, **values: Any) -> None:
        from modernbert.tasks.finetune import finetune

        given = {each.path: _or_none(values[each.name]) for each in options}
        given[("sweep", "seeds")] = None if seeds is None else list(range(seeds))
        base = {} if recipe is None else load_mapping(recipe)
        settings = settings_of(
            verb.recipe_class,
            options,
            _completed(name, _swept(given), base),
            base=base,
            where="options" if recipe is None else str(recipe),
        )
        report(
            settings,
            lambda watch: finetune(name, settings, on_job=tell_of_job, on_record=watch),
            as_json=as_json,
        )

    own = {"recipe": (RecipeFile, None), "seeds": (Seeds, None), "as_json": (AsJson, False)}
    apart = [
        inspect.Parameter(
            each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for each, (annotation, default) in own.items()
    ]
    parameters = [apart[0], *(each.parameter() for each in options), *apart[1:]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _optional(option: SettingOption) -> SettingOption:
    """An option that says nothing when it is not given, so that a recipe's value counts."""
    shown = option.doc.default or (f"{option.default}" if option.shows_default else None)
    doc = dataclasses.replace(option.doc, default=shown)
    if option.path in _SWEPT:
        doc = dataclasses.replace(doc, text=f"{doc.text} Repeat it to try several values.")
        return dataclasses.replace(option, doc=doc, type=tuple[option.type, ...], default=())  # type: ignore[name-defined]
    nothing = () if isinstance(option.default, tuple) else None
    return dataclasses.replace(option, doc=doc, default=nothing)


def _or_none(value: Any) -> Any:
    """The value of an option; None for a repeatable one that was not given."""
    return None if isinstance(value, list | tuple) and not value else value


def _swept(given: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """The values with those that make a sweep in its table."""
    values = dict(given)
    for path, name in _SWEPT.items():
        several = values.pop(path, None) or []
        values[path] = several[0] if len(several) == 1 else None
        values[("sweep", name)] = list(several) if len(several) > 1 else None
    return values


def _completed(
    name: str, given: dict[tuple[str, ...], Any], base: Mapping[str, Any]
) -> dict[tuple[str, ...], Any]:
    """The values with a folder for the result where none is named.

    Raises:
        SettingsError: There is no model, or there are no rows.
    """
    train = given.get(("data", "train")) or base.get("data", {}).get("train")
    if not (given.get(("model",)) or base.get("model")):
        raise SettingsError("--model: is missing; name a model folder or a hub id")
    if not train:
        raise SettingsError("--train: is missing; name the rows, such as --train train.csv")
    if not (given.get(("output",)) or base.get("output")):
        given[("output",)] = f"runs/{name}-{Path(train).name.split('.')[0]}"
    return {path: str(value) if isinstance(value, Path) else value for path, value in given.items()}


for _name, _verb in VERBS.items():
    app.command(
        name=_name,
        help=_HELP.format(summary=_verb.summary),
        epilog=example(f"finetune {_name} -m runs/mine/model --train train.jsonl --dev dev.jsonl"),
    )(_command(_name, _verb))
