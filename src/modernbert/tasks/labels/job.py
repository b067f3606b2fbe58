"""Labelled rows as a `TuningJob`: tables opened, examples and what a model should give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.data.held_out import held_out
from modernbert.data.rows.cells import are_flags, as_list, flag
from modernbert.data.rows.table import IDS, Table
from modernbert.data.rows.tables import read_table
from modernbert.devices import filled
from modernbert.errors import DocumentError, InputError, TrainingError
from modernbert.inference.batching import batch_tokens_for
from modernbert.inference.loading import longest_sequence, require_same_vocabulary
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.labels.recipe import (
    CONTEXTS,
    AnswerRows,
    ClassifyRows,
    LabelledRows,
    TagRows,
)
from modernbert.tasks.tuning.first_model import first_model, require_layers
from modernbert.tasks.tuning.job import HeldOutSplit, ModelUse, Review, TuningJob
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tasks.tuning.task import Pack, computed_together
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training.distributed import Group


class Example(Protocol):
    """One sequence; what it should give is known to its criterion."""

    @property
    def token_ids(self) -> Sequence[int]: ...


E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Split(Generic[E]):
    """The examples of one table; what was read of each, for a person, stands in `shown`."""

    source: str
    examples: Sequence[E]
    shown: Sequence[str]


class Criterion(Protocol[E]):
    """What a model's outputs should be, for one kind of label.

    metric: The score by which weights are chosen; higher is better.
    """

    @property
    def metric(self) -> str: ...

    def num_targets(self, example: E, /) -> int:
        """How many targets an example has; the loss of a step is the mean over all of them."""

    def loss(self, outputs: Tensor, batch: PackedBatch, examples: Sequence[E], /) -> Tensor:
        """The SUM of the losses of a batch's targets; the outputs are float32."""

    def scores(self, outputs: Sequence[Tensor], examples: Sequence[E], /) -> dict[str, float]:
        """How good outputs are, all those of a set of examples together; on the CPU."""

    def review(self, outputs: Sequence[Tensor], split: Split[E], /) -> Review:
        """Figures of each label, and what the model is most wrong about."""


class LabelObjective(Generic[E]):
    """Learning a criterion from examples: the `Objective` of labelled rows.

    Args:
        criterion: What outputs should be.
        splits: The examples to learn from, `train`, and those that are held out.
        micro_batch_tokens: The most tokens of an evaluation's batch; by device when None.
    """

    whole_steps = False

    def __init__(
        self,
        criterion: Criterion[E],
        splits: Mapping[str, Split[E]],
        micro_batch_tokens: int | None = None,
    ) -> None:
        self.criterion, self.splits = criterion, splits
        self.micro_batch_tokens = micro_batch_tokens
        self.train = splits["train"].examples
        self.lengths = [len(example.token_ids) for example in self.train]

    @property
    def metric(self) -> str:
        """The criterion's own."""
        return self.criterion.metric

    def num_targets(self, row: int) -> int:
        """The targets of an example to learn from."""
        return self.criterion.num_targets(self.train[row])

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, _done: float, /) -> Tensor:
        """The sum of the losses of some examples' targets."""
        examples = [self.train[row] for row in rows]
        batch = packed(examples, group.device)
        return self.criterion.loss(outputs_of(module, batch), batch, examples)

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Mean loss and scores on held-out examples; nothing without any."""
        if split not in self.splits:
            return {}
        examples = self.splits[split].examples
        outputs, loss = self._predict(module, examples, group)
        num_targets = sum(self.criterion.num_targets(example) for example in examples)
        return {"loss": loss / max(1, num_targets), **self.criterion.scores(outputs, examples)}

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """A closer look at the predictions for held-out examples."""
        outputs, _ = self._predict(module, self.splits[split].examples, group)
        return self.criterion.review(outputs, self.splits[split])

    @torch.no_grad()
    def _predict(
        self, module: nn.Module, examples: Sequence[E], group: Group
    ) -> tuple[list[Tensor], float]:
        """The outputs of each example, float32 on the CPU, and the sum of their losses.

        Raises:
            TrainingError: Outputs that are NaN or infinite.
        """
        lengths = [len(example.token_ids) for example in examples]
        batch_tokens = batch_tokens_for(group.device, self.micro_batch_tokens)
        loss = torch.zeros((), dtype=torch.float64)

        def compute(pack: Pack) -> Sequence[Tensor]:
            nonlocal loss
            chosen = [examples[place] for place in pack.places]
            batch = packed(chosen, group.device)
            outputs = outputs_of(module, batch)
            if not outputs.isfinite().all():
                raise TrainingError("the model's outputs are not finite; use a lower learning rate")
            if pack.counts:
                loss += self.criterion.loss(outputs, batch, chosen).double().cpu()
            return rows_of_each(outputs.cpu(), batch)

        found = computed_together(compute, lengths, batch_tokens, group)
        group.sum([loss])
        # A text has one row of outputs, and a sequence of tokens has two or more.
        is_of_texts = all(len(rows) == 1 for rows in found)
        return [rows[0] for rows in found] if is_of_texts else found, float(loss)


def outputs_of(module: nn.Module, batch: PackedBatch) -> Tensor:
    """What a module gives for a batch, float32."""
    full = filled(batch)
    outputs: Tensor = module(full)
    is_for_tokens = len(outputs) == full.total_tokens
    return outputs[: batch.total_tokens if is_for_tokens else batch.num_sequences].float()


def rows_of_each(outputs: Tensor, batch: PackedBatch) -> Sequence[Tensor]:
    """The outputs of each sequence, (num_rows, width): one row, or a row for each token.

    Args:
        outputs: (num_sequences, width) or (total_tokens, width); a sequence has two tokens at
            least.
        batch: The sequences.
    """
    return outputs.split(1) if len(outputs) == batch.num_sequences else batch.split(outputs)


def packed(examples: Sequence[Example], device: torch.device) -> PackedBatch:
    """The sequences of examples as one batch."""
    return PackedBatch.from_sequences([each.token_ids for each in examples], device=device)


@dataclass(frozen=True)
class Mistake:
    """An example that a model is wrong about, or was least sure of.

    Attributes:
        doubt: How wrong; the largest are shown.
    """

    doubt: float
    text: str
    expected: str
    predicted: str


def mistakes_of(found: Sequence[Mistake]) -> dict[str, Any]:
    """Mistakes as a review has them, the worst first."""
    worst = sorted(found, key=lambda each: -each.doubt)
    return {
        "columns": ("text", "is", "given", "by"),
        "mistakes": [
            (each.text, each.expected, each.predicted, f"{each.doubt:.3f}") for each in worst
        ],
    }


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
        require_layers(config, recipe.training)
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
