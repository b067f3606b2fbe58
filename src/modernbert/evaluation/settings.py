"""What a user says of the rows, the folder or the suite that a model is scored on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(Settings):
    """The columns of labelled rows, where their names do not tell."""

    text: Annotated[str | None, Doc("The column of the texts.", default="found by its name")] = None
    text_pair: Annotated[
        str | None, Doc("The column of the second texts.", default="found by its name")
    ] = None
    label: Annotated[
        tuple[str, ...],
        Doc("The column of the labels; may be repeated.", default="found by its name"),
    ] = ()
    label_separator: Annotated[
        str | None, Doc("The separator of several labels in one column, such as '|'.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(ColumnSettings):
    """The options of `evaluate`: the first ones for a suite, `split` for a BEIR folder."""

    data: Annotated[
        Path | None,
        Doc(
            "The folder to which the paths in a suite are relative.",
            default="the folder of the suite",
        ),
    ] = None
    tasks: Annotated[
        tuple[str, ...],
        Doc("Run only this task; may be repeated.", default="all", flags=("--task",)),
    ] = ()
    starts: Annotated[
        tuple[str, ...],
        Doc(
            "A model, fine-tuned already, for the tasks that start from another task, as "
            "TASK=MODEL: mnli=runs/mnli/model. May be repeated.",
            flags=("--start",),
        ),
    ] = ()
    split: Annotated[str, Doc("The split of a BEIR folder.")] = "test"
