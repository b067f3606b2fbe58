"""How labelled rows are learned: a `Criterion` for outputs, its `Objective`, and the job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.data.rows.table import Table, TextColumns
from modernbert.devices import filled
from modernbert.errors import TrainingError
from modernbert.inference.batching import batch_tokens_for
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.model.initialize import first_model
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.labels.recipe import LabelledPairs
from modernbert.tasks.labels.rows import LabelledTables
from modernbert.tasks.tuning.job import HeldOutSplit, ModelUse, Review, TuningJob
from modernbert.tasks.tuning.page import joined, shown
from modernbert.tasks.tuning.task import Pack, computed_together
from modernbert.training.distributed import Group

NOTHING = "none", "no answer"
"""What rows without labels, entities or answers are said to hold; others are shown before them."""
_SHOWN_RIGHT = 8


class Example(Protocol):
    """One sequence; its criterion knows what the model should output for it."""

    @property
    def token_ids(self) -> Sequence[int]: ...


E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Split(Generic[E]):
    """The examples of one table; `shown` has each of them as a text for people to read."""

    source: str
    examples: Sequence[E]
    shown: Sequence[str]


class Criterion(Protocol[E]):
    """What a model's outputs should be, for one kind of label.

    Attributes:
        metric: The score by which weights are chosen; higher is better.
    """

    @property
    def metric(self) -> str: ...

    def num_targets(self, example: E, /) -> int:
        """Return an example's number of targets; a step's loss is the mean over all targets."""

    def loss(self, outputs: Tensor, batch: PackedBatch, examples: Sequence[E], /) -> Tensor:
        """Return the SUM of the losses of a batch's targets; the outputs are float32."""

    def scores(self, outputs: Sequence[Tensor], examples: Sequence[E], /) -> dict[str, float]:
        """Compute scores from the outputs of all examples together, on the CPU."""

    def review(self, outputs: Sequence[Tensor], split: Split[E], /) -> Review:
        """Return figures of each label, and the worst predictions."""


class LabelObjective(Generic[E]):
    """The `Objective` of labelled rows: learns a criterion from examples.

    Args:
        criterion: What the outputs should be.
        splits: The examples to learn from, `train`, and the held-out ones.
        micro_batch_tokens: The most tokens of a batch in an evaluation; None chooses by device.
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
        """The criterion's metric."""
        return self.criterion.metric

    def num_targets(self, row: int) -> int:
        """Return the number of targets of a training example."""
        return self.criterion.num_targets(self.train[row])

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, _done: float, /) -> Tensor:
        """Return the sum of the losses of the targets of some training examples."""
        examples = [self.train[row] for row in rows]
        batch = packed(examples, group.device)
        return self.criterion.loss(outputs_of(module, batch), batch, examples)

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Compute the mean loss and the scores on held-out examples; empty without any."""
        if split not in self.splits:
            return {}
        examples = self.splits[split].examples
        outputs, loss = self._predict(module, examples, group)
        num_targets = sum(self.criterion.num_targets(example) for example in examples)
        return {"loss": loss / max(1, num_targets), **self.criterion.scores(outputs, examples)}

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """Look at the predictions for held-out examples in detail."""
        outputs, _ = self._predict(module, self.splits[split].examples, group)
        return self.criterion.review(outputs, self.splits[split])

    def outputs(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Tensor:
        """Return the module's outputs for held-out examples, (num_examples, width) float32.

        For examples with one row of outputs each, such as labels of texts.
        """
        return torch.stack(self._predict(module, self.splits[split].examples, group)[0])

    @torch.no_grad()
    def _predict(
        self, module: nn.Module, examples: Sequence[E], group: Group
    ) -> tuple[list[Tensor], float]:
        """Return the outputs of each example, float32 on the CPU, and the sum of their losses.

        Raises:
            TrainingError: Outputs are NaN or infinite.
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
                loss += self.criterion.loss(outputs, batch, chosen).cpu().double()
            return rows_of_each(outputs.cpu(), batch)

        found = computed_together(compute, lengths, batch_tokens, group)
        group.sum([loss])
        # A text has one row of outputs, and a sequence of tokens has two or more.
        is_of_texts = all(len(rows) == 1 for rows in found)
        return [rows[0] for rows in found] if is_of_texts else found, float(loss)


def outputs_of(module: nn.Module, batch: PackedBatch) -> Tensor:
    """Return a module's outputs for a batch, float32, divided by its temperature if it has one."""
    full = filled(batch)
    outputs: Tensor = module(full)
    is_for_tokens = len(outputs) == full.total_tokens
    outputs = outputs[: batch.total_tokens if is_for_tokens else batch.num_sequences].float()
    temperature = getattr(getattr(module, "settings", None), "temperature", 1.0)
    return outputs if temperature == 1.0 else outputs / temperature


def rows_of_each(outputs: Tensor, batch: PackedBatch) -> Sequence[Tensor]:
    """Divide outputs by sequence: (num_rows, width) each, one row or a row per token.

    Args:
        outputs: (num_sequences, width) or (total_tokens, width); a sequence has at least two
            tokens.
        batch: The sequences, packed one after another.
    """
    return outputs.split(1) if len(outputs) == batch.num_sequences else batch.split(outputs)


def packed(examples: Sequence[Example], device: torch.device) -> PackedBatch:
    """Pack the sequences of examples into one batch."""
    return PackedBatch.from_sequences([each.token_ids for each in examples], device=device)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A prediction and what was expected.

    Attributes:
        is_right: Whether it is entirely right.
        error: How wrong it is; the largest errors are shown.
        figure: A number to show with it.
    """

    is_right: bool
    error: float
    text: str
    expected: str
    predicted: str
    figure: str


def judged_rows(rows: Sequence[Judged], figure: str) -> dict[str, Any]:
    """Return the tables of a review: wrong predictions, the worst first, and a few right ones.

    Args:
        rows: The predictions for all rows.
        figure: The heading of their figures.
    """
    wrong = sorted((each for each in rows if not each.is_right), key=lambda each: -each.error)
    right = sorted(
        (each for each in rows if each.is_right), key=lambda each: each.expected in NOTHING
    )
    return {
        "columns": ("text", "is", "given", figure),
        "mistakes": [_cells(each) for each in wrong],
        "right": [_cells(each) for each in right[:_SHOWN_RIGHT]],
    }


def _cells(row: Judged) -> tuple[str, ...]:
    return shown(row.text), row.expected, row.predicted, row.figure


def label_job(
    source: LabelledTables,
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
    """Make the job of learning a criterion from the examples of tables.

    Args:
        source: The tables of the recipe.
        verb: Its name on the command line.
        criterion: What the outputs should be.
        splits: The examples of each table.
        model: The class of the model.
        settings: The settings of its head.
        use: What its card says about using it.
        notes: What users should know about the data.
        facts: More about the data.
    """
    recipe, config, tokenizer = source.recipe, source.config, source.tokenizer

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
            f"{source.tables[name].understood}"
            for name, split in splits.items()
        },
        fingerprint=_fingerprint(splits),
        notes=notes,
        facts=facts,
    )


def _fingerprint(splits: Mapping[str, Split[Any]]) -> str:
    """Return the sha256 (hex) of all examples, including their targets.

    Those of `dev` choose the weights and those of `test` are in the results, so both count.
    """
    digest = sha256()
    for name in ("train", "dev", "test"):
        digest.update(b"split")
        for example in splits[name].examples if name in splits else ():
            digest.update(repr(example).encode())
    return digest.hexdigest()


def use_of(name: str, pipeline: str, gives: str, call: str) -> ModelUse:
    """Return what a model card says about using the model.

    Args:
        name: The class of `modernbert` that uses it.
        pipeline: The pipeline of transformers that loads it too.
        gives: What it computes, in words.
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


def text_job(
    source: LabelledTables,
    criterion: Criterion[E],
    make: Mapping[str, Sequence[Callable[[list[int]], E]]],
    *,
    verb: str,
    settings: ClassifierSettings,
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> TuningJob:
    """Make the job of learning from the texts of tables.

    Args:
        source: The tables of the recipe, with their labels.
        criterion: What the outputs should be.
        make: For each split, one function per row that makes an example from the row's token ids.
        verb: Its name on the command line.
        settings: The settings of the model's head.
        facts: More about the data.
        notes: What users should know about the labels.

    Raises:
        DocumentError: No column of texts, or a row without one.
    """
    assert isinstance(source.data, LabelledPairs)
    columns = TextColumns.find(source.train, source.data.text, source.data.text_pair)
    encoder = TextEncoder(source.tokenizer, source.max_seqlen)
    splits, notes = {}, list(notes)
    for name, table in source.tables.items():
        texts = columns.read(table)
        encoded = encoder(texts)
        notes += _notes(table, texts, encoded, source.max_seqlen)
        splits[name] = Split(
            table.source,
            [each(row.token_ids) for each, row in zip(make[name], encoded, strict=True)],
            [joined(text) for text in texts],
        )
    return label_job(
        source,
        verb,
        criterion,
        splits,
        SequenceClassifier,
        settings,
        use_of(
            "Classifier",
            "text-classification",
            "a label or a number for a text",
            '"A text."',
        ),
        notes=notes,
        facts={"texts": str(columns), "longest sequence": source.max_seqlen, **facts},
    )


def _notes(
    table: Table, texts: Sequence[Text], encoded: Sequence[EncodedText], max_seqlen: int
) -> list[str]:
    notes = []
    if cut := sum(each.is_truncated for each in encoded):
        notes.append(
            f"{table.source}: {cut:,} of {len(texts):,} texts are longer than {max_seqlen:,} "
            "tokens and are cut there"
        )
    if empty := sum(not "".join(text) for text in texts):
        notes.append(f"{table.source}: {empty:,} of {len(texts):,} texts are empty")
    return notes
