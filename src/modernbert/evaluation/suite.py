"""`Suite`: the tasks of an evaluation, as a small TOML file over local data.

    name = "mine"

    [[tasks]]
    name = "sentiment"
    kind = "classify"                        # fine-tuned, then scored
    train = "sst2/train"                     # sst2/train.jsonl, .csv.gz, ... in the folder of data
    dev = "sst2/dev"
    metric = "accuracy"

    [tasks.training]
    epochs = 3

    [[tasks]]
    name = "medicine"
    kind = "retrieve"                        # with data: queries and documents are embedded
    data = "nfcorpus/test"
    metric = "ndcg@10"

Some are part of the package and are named instead of a file; `suite_names` lists them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from modernbert.data.rows.formats import READERS
from modernbert.errors import InputError, SettingsError
from modernbert.settings import Doc, Settings, load, parse, to_mapping
from modernbert.tasks.finetune import VERBS, find_verb
from modernbert.tasks.tuning.recipe import RunSettings, SweepSettings, TuningRecipe

UNTRAINED = "retrieve"
"""The kind of a task with `data`: its texts are embedded by the model as it is."""

_SUITES = Path(__file__).with_name("suites")
_PACKED = ("", ".gz", ".xz", ".zst")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """One task.

    Attributes:
        name: Of its folder and of its row in the table.
        kind: The verb of `modernbert finetune` by which it is learnt; or `retrieve` with `data`.
        metric: The score that counts.
        train: Rows to learn from and to score on, for what is learnt.
        dev: As `train`.
        test: Scored in place of `dev`, which chooses the weights then.
        data: The folder of judged texts, for retrieval without training.
        split: Of its judgements.
        start_from: The task whose fine-tuned model this one begins with, where there is one.
        text: As in the data of the verb's recipe.
        text_pair: As `text`.
        label: As `text`.
        max_seqlen: As `text`.
        training: As in the verb's recipe; its defaults when None.
        seeds: How many runs; the score is their mean.

    Raises:
        SettingsError: An unknown kind, or data that the kind lacks or has no use for.
    """

    name: str
    kind: str
    metric: str
    train: str | None = None
    dev: str | None = None
    test: str | None = None
    data: str | None = None
    split: str = "test"
    start_from: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: tuple[str, ...] = ()
    max_seqlen: int | None = None
    training: RunSettings | None = None
    seeds: int = 1

    @classmethod
    def unfold(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Read the table `training` of a file's mapping as that of the kind's recipe."""
        values, kind = dict(mapping), mapping.get("kind")
        if "training" in values and kind in VERBS:
            training = VERBS[kind].training_class
            values["training"] = parse(training, values["training"], where=f"{where}: training")
        return values

    def __post_init__(self) -> None:
        if self.kind not in VERBS:
            known = ", ".join(map(repr, VERBS))
            raise SettingsError(f"kind: got {self.kind!r}, expected one of {known}")
        needed = ("train", "dev") if self.is_learnt else ("data",)
        for name in ("train", "dev", "data"):
            if name in needed and getattr(self, name) is None:
                raise SettingsError(f"task {self.name!r}: {name} is missing")
            if name not in needed and getattr(self, name) is not None:
                raise SettingsError(f"task {self.name!r}: {name} does not apply to {self.kind}")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise SettingsError(f"name: got {self.name!r}, expected the name of a folder")
        if self.seeds < 1:
            raise SettingsError(f"task {self.name!r}: seeds: got {self.seeds}, expected 1 or more")

    @property
    def is_learnt(self) -> bool:
        """Whether a model is fine-tuned for it, and not used as it is."""
        return self.kind != UNTRAINED or (self.data is None and self.train is not None)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that its result depends on besides the model, as JSON values."""
        values = to_mapping(self)
        if self.is_learnt:
            training = self.training or find_verb(self.kind).training_class()
            values["training"] = training.identity
        return values

    def recipe(self, model: str, output: Path, data: Path) -> TuningRecipe:
        """Return the fine-tuning of a task that is learnt.

        Args:
            model: To begin with.
            output: The folder of the fine-tuning.
            data: The folder that paths are relative to.

        Raises:
            InputError: A file that is not there.
            SettingsError: A setting that the kind has no use for.
        """
        paths = {"train": self.train, "dev": self.dev, "test": self.test}
        columns = {"text": self.text, "text_pair": self.text_pair, "max_seqlen": self.max_seqlen}
        rows = {
            **{name: str(find_table(data, path)) for name, path in paths.items() if path},
            **{name: value for name, value in columns.items() if value is not None},
            **({"label": self.label} if self.label else {}),
        }
        values = {
            "model": model,
            "output": str(output),
            "data": rows,
            **({"training": self.training} if self.training else {}),
            "sweep": SweepSettings(seeds=tuple(range(self.seeds))),
        }
        recipe = parse(find_verb(self.kind).recipe_class, values, where=f"task {self.name!r}")
        metric = recipe.training.metric if self.training and self.training.metric else self.metric
        return replace(recipe, training=replace(recipe.training, metric=metric))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The tasks, in their order.

    Raises:
        SettingsError: No task, or a name twice.
    """

    name: str
    tasks: tuple[TaskSettings, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names:
            raise SettingsError("tasks: got none, expected one or more")
        if len(set(names)) < len(names):
            raise SettingsError("tasks: a name occurs twice")

    def only(self, names: Sequence[str]) -> "Suite":
        """Return some of the tasks, or all when there are no names.

        Raises:
            InputError: A name that no task has.
        """
        known = [task.name for task in self.tasks]
        for name in names:
            if name not in known:
                raise InputError(f"task {name!r}: not in the suite, which has {', '.join(known)}")
        return (
            self
            if not names
            else replace(self, tasks=tuple(task for task in self.tasks if task.name in names))
        )

    def in_order(self) -> list[TaskSettings]:
        """Return the tasks, each behind the one that it starts from."""
        done: list[TaskSettings] = []
        names = {task.name: task for task in self.tasks}

        def add(task: TaskSettings, above: tuple[str, ...]) -> None:
            if task in done:
                return
            if task.name in above:
                raise SettingsError(f"task {task.name!r}: start_from leads back to itself")
            if task.start_from in names:
                add(names[task.start_from], (*above, task.name))
            done.append(task)

        for task in self.tasks:
            add(task, ())
        return done


def suite_of_folder(folder: Path, split: str) -> Suite:
    """Make a suite of one task, retrieval without training in a folder of judged texts."""
    name = folder.resolve().name
    task = TaskSettings(name=name, kind=UNTRAINED, metric="ndcg@10", data=str(folder), split=split)
    return Suite(name=name, tasks=(task,))


def read_suite(path_or_name: str) -> Suite:
    """Read a suite's file, or one of the package by its name.

    Raises:
        SettingsError: No such suite, or one that cannot be used.
    """
    own = _SUITES / f"{path_or_name}.toml"
    if path_or_name in suite_names():
        return load(Suite, own)
    if Path(path_or_name).suffix != ".toml":
        raise SettingsError(
            f"{path_or_name}: is no suite and no such file; expected a .toml file, one of "
            f"{', '.join(suite_names())}, a BEIR folder, or a file of labelled rows"
        )
    return load(Suite, path_or_name)


def suite_names() -> list[str]:
    """Return the suites of the package."""
    return sorted(path.stem for path in _SUITES.glob("*.toml"))


def find_table(folder: Path, name: str) -> Path:
    """Return a file of rows by its path, whose ending may be left out.

    Raises:
        InputError: It is not there.
    """
    path = folder / name
    if path.exists():
        return path
    for suffix in READERS:
        for packed in _PACKED:
            candidate = path.with_name(f"{path.name}{suffix}{packed}")
            if candidate.is_file():
                return candidate
    raise InputError(
        f"{path}: no such file, with or without a suffix such as .jsonl; name the folder of the "
        "data with --data"
    )


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
