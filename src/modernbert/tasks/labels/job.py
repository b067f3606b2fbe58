"""Labelled rows as a `TuningJob`: the tables of a recipe, opened, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from modernbert.data.held_out import held_out
from modernbert.data.rows.cells import are_flags, as_list, flag
from modernbert.data.rows.table import IDS, Table
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError, InputError
from modernbert.inference.loading import longest_sequence, require_same_vocabulary
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings
from modernbert.model.initialize import first_model
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.labels.objective import Criterion, E, LabelObjective, Split
from modernbert.tasks.labels.recipe import (
    CONTEXTS,
    AnswerRows,
    ClassifyRows,
    LabelledRows,
    TagRows,
)
from modernbert.tasks.tuning.job import ModelUse, TuningJob
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LabelledTables:
    """The model and the tables of a recipe, opened.

    Attributes:
        max_seqlen: The longest sequence, in tokens.
    """

    recipe: TuningRecipe
    data: LabelledRows
    config: EncoderConfig
    tokenizer: Tokenizer
    max_seqlen: int
    tables: Mapping[str, Table]

    @classmethod
    def open(cls, recipe: TuningRecipe) -> "LabelledTables":
        """Read what a recipe names.

        Raises:
            ModelFolderError: No such model.
            TokenizerError: No tokenizer beside it.
            DocumentError: A table that cannot be read, or whose ids are not distinct.
            InputError: A tokenizer of another vocabulary, or a length that the model cannot read.
            SettingsError: More layers to freeze than there are.
        """
        config = EncoderConfig.from_pretrained(recipe.model)
        recipe.training.require_layers(config.num_layers)
        tokenizer = Tokenizer.from_pretrained(recipe.model)
        require_same_vocabulary(config, tokenizer)
        data = recipe.data
        assert isinstance(data, LabelledRows)
        return cls(
            recipe=recipe,
            data=data,
            config=config,
            tokenizer=tokenizer,
            max_seqlen=longest_sequence(config, tokenizer, data.max_seqlen),
            tables=_tables(data),
        )

    @property
    def train(self) -> Table:
        """The rows to learn from."""
        return self.tables["train"]

    def label_column(self, usual: Sequence[str]) -> str:
        """The one column of labels, scores, tags or answers.

        Raises:
            DocumentError: There is none.
            InputError: Several are asked for.
        """
        if len(self.data.label) > 1:
            raise InputError(f"label: got {len(self.data.label)} columns, expected one")
        asked = self.data.label[0] if self.data.label else None
        return self.train.find(usual, asked=asked, option="--label")

    def job(
        self,
        verb: str,
        criterion: Criterion[E],
        splits: Mapping[str, Split[E]],
        model: Any,
        settings: ClassifierSettings,
        use: ModelUse,
        *,
        notes: Sequence[str] = (),
        facts: Mapping[str, Any],
    ) -> TuningJob:
        """The job of learning a criterion from examples of these tables.

        Args:
            verb: Its name on the command line.
            criterion: What outputs should be.
            splits: The examples of each table.
            model: The class of the model.
            settings: Of its head.
            use: What its card says of using it.
            notes: What a user should know about the data.
            facts: More about the data.
        """
        recipe, config, tokenizer = self.recipe, self.config, self.tokenizer

        def save(module: nn.Module, folder: Path) -> None:
            assert isinstance(module, SavedModel)
            module.save_pretrained(folder)
            tokenizer.save_pretrained(folder, model_max_length=config.max_seqlen)

        return TuningJob(
            verb=verb,
            recipe=recipe,
            config=config,
            objective=LabelObjective(criterion, splits, recipe.training.micro_batch_tokens),
            first=lambda seed: first_model(model, settings, recipe.model, seed=seed),
            load=model.from_pretrained,
            save=save,
            use=use,
            splits={
                name: f"{split.source}, {len(split.examples):,} examples"
                f"{self.tables[name].understood}"
                for name, split in splits.items()
            },
            fingerprint=_fingerprint(splits),
            notes=notes,
            facts=facts,
        )


def use_of(name: str, pipeline: str, gives: str, call: str) -> ModelUse:
    """How a model card shows what a model is used with.

    Args:
        name: A class of `modernbert`.
        pipeline: Which pipeline of transformers loads it as well.
        gives: What it gives, in words.
        call: The arguments of an example.
    """
    return ModelUse(
        library="transformers",
        pipeline=pipeline,
        gives=gives,
        example=f'from modernbert import {name}\n\nmodel = {name}.from_pretrained("FOLDER")\n'
        f"print(model({call}))",
        also=f'transformers loads it as well: `pipeline("{pipeline}", model="FOLDER")`.',
    )


def _tables(data: LabelledRows) -> dict[str, Table]:
    """The table of each split; a share of the rows to learn from may become that of `dev`."""
    tables = {name: _read(source, data) for name, source in data.sources.items()}
    if data.dev_share is None:
        return tables
    train = tables["train"]
    chosen = _held_out(train, data, data.dev_share)
    if not any(chosen):
        raise InputError(
            f"--dev {data.dev}: is less than one row of {train.source} that can be spared; raise it"
        )
    kept, held = (
        train.only([row for row, is_out in enumerate(chosen) if is_out is side], fact)
        for side, fact in ((False, f"without the {data.dev} held out"), (True, f"{data.dev} of it"))
    )
    return {"train": kept, "dev": held, **{k: v for k, v in tables.items() if k == "test"}}


def _held_out(table: Table, data: LabelledRows, share: float) -> list[bool]:
    """Which rows are held out; questions about one context stay together."""
    if isinstance(data, AnswerRows):
        context = table.find(CONTEXTS, asked=data.text_pair, option="--text-pair")
        return held_out([str(value) for value in table.values(context)], share)
    rows = range(len(table))
    if not isinstance(data, ClassifyRows | TagRows):
        return held_out(rows, share)
    labels = [_labels_of(row, table, data) for row in table.rows]
    is_single = all(len(each) == 1 for each in labels)
    return held_out(rows, share, labels=labels, stratify=is_single)


def _labels_of(row: Mapping[str, Any], table: Table, data: LabelledRows) -> list[str]:
    """The labels of a row as texts, wherever they stand and however they are written."""
    if len(data.label) > 1:
        return [name for name in data.label if flag(row.get(name))]
    name = next(iter(data.label), None) or table.first_of(data.usual_labels)
    value = row.get(name) if name is not None else None
    separator = getattr(data, "label_separator", None)
    if separator and isinstance(value, str):
        return value.split(separator)
    try:
        values = as_list(value)
    except DocumentError:  # which is told with its row when the labels are read
        values = None
    if values is None:
        return [str(value)]
    if are_flags([values]):
        return [str(place) for place, each in enumerate(values) if flag(each)]
    return [str(each) for each in values if not isinstance(each, dict | list | tuple)]


def _read(source: str, data: LabelledRows) -> Table:
    table = read_table(source, data, data.asked)
    if (column := table.first_of(IDS)) is not None:
        table.require_distinct(column)
    return table


def _fingerprint(splits: Mapping[str, Split[Any]]) -> str:
    """The sha256 (hex) of all examples, their targets included.

    Those of `dev` choose the weights and those of `test` are in the results, so they count.
    """
    digest = sha256()
    for name in ("train", "dev", "test"):
        digest.update(b"split")
        for example in splits[name].examples if name in splits else ():
            digest.update(repr(example).encode())
    return digest.hexdigest()
