"""Labels of words: named entities, or any other mark on each word of a text.

A word's label is that of its first token. Words that lie past the longest sequence get no
prediction, and count as `O` when a model is scored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.data.rows.table import Table
from modernbert.data.rows.tagged import TAGS, TaggedColumns
from modernbert.errors import InputError
from modernbert.inference.tagger import first_tokens
from modernbert.metrics.classification import classification_scores, confusion_of, figures_of_labels
from modernbert.metrics.spans import OUTSIDE, entity_scores, entity_spans, figures_of_kinds
from modernbert.model.heads import ClassifierSettings, TokenClassifier
from modernbert.tasks.labels.objective import Judged, Split, judged_rows, label_job, use_of
from modernbert.tasks.labels.recipe import TagRecipe
from modernbert.tasks.labels.rows import (
    LabelledTables,
    counts_of,
    label_indices,
    label_weights,
    learn_labels,
    row_label_names,
)
from modernbert.tasks.tuning.job import Review, TuningJob
from modernbert.word_splitting import WordSplitting

# Marks behind the kind, or before an underscore.
_OTHER_MARK = re.compile(r"([BIESLUM])_.+|.+[-_]([BIESLUM])")


@dataclass(frozen=True)
class TaggedWords:
    """Words as token ids.

    Attributes:
        first_tokens: For each word that is not cut off, the place of its first token.
        labels: The index of each word's label, also of those that are cut off.
    """

    token_ids: list[int]
    first_tokens: list[int]
    labels: list[int]


class Tagging:
    """One label per word, learned by cross entropy at each word's first token.

    Args:
        labels: The names of the labels. With O among them, whole entities are scored, else words.
        weights: How much a word of each label counts; None if all count equally.
    """

    def __init__(self, labels: Sequence[str], weights: Tensor | None = None) -> None:
        self.labels, self.weights = tuple(labels), weights
        self.has_entities = OUTSIDE in self.labels
        self.metric = "f1" if self.has_entities else "accuracy"

    def num_targets(self, example: TaggedWords, /) -> int:
        """Return the number of words that are not truncated."""
        return len(example.first_tokens)

    def loss(
        self, outputs: Tensor, batch: PackedBatch, examples: Sequence[TaggedWords], /
    ) -> Tensor:
        """Return the sum of the cross entropies of the words."""
        starts = batch.cu_seqlens.tolist()
        rows, targets = [], []
        for start, example in zip(starts, examples, strict=False):
            rows += [start + place for place in example.first_tokens]
            targets += example.labels[: len(example.first_tokens)]
        device = outputs.device
        chosen = outputs[torch.tensor(rows, dtype=torch.int64, device=device)]
        expected = torch.tensor(targets, dtype=torch.int64, device=device)
        weights = None if self.weights is None else self.weights.to(device)
        losses = functional.cross_entropy(chosen, expected, reduction="none")
        return (losses if weights is None else losses * weights[expected]).sum()

    def scores(
        self, outputs: Sequence[Tensor], examples: Sequence[TaggedWords], /
    ) -> dict[str, float]:
        """Compute F1 of whole entities, or accuracy and F1 of words if there are no entities."""
        predicted = [self._predicted(*pair) for pair in zip(outputs, examples, strict=True)]
        if not self.has_entities:
            given, wanted = _flat(predicted), _flat([each.labels for each in examples])
            return classification_scores(given, wanted, len(self.labels))
        expected = [each.labels for each in examples]
        return entity_scores(self._named(predicted), self._named(expected))

    def review(self, outputs: Sequence[Tensor], split: Split[TaggedWords], /) -> Review:
        """Return figures of each kind of entity or label, and the texts with most mistakes."""
        expected = [each.labels for each in split.examples]
        predicted = [self._predicted(*pair) for pair in zip(outputs, split.examples, strict=True)]
        given, wanted = self._named(predicted), self._named(expected)
        words = _flat(predicted), _flat(expected), self.labels
        judged = [
            Judged(
                is_right=not (wrong := sum(a != b for a, b in zip(right, found, strict=True))),
                error=wrong,
                text=text,
                expected=self._described(text, right),
                predicted=self._described(text, found),
                figure=f"{wrong:,}",
            )
            for text, right, found in zip(split.shown, wanted, given, strict=True)
        ]
        return Review(
            labels=figures_of_kinds(given, wanted)
            if self.has_entities
            else figures_of_labels(*words),
            confusion=None if self.has_entities else confusion_of(*words),
            **judged_rows(judged, "words wrong"),
        )

    def _predicted(self, outputs: Tensor, example: TaggedWords) -> list[int]:
        """Return the label of each word; O or the first label for truncated words."""
        found = outputs[example.first_tokens].argmax(1).tolist() if example.first_tokens else []
        outside = self.labels.index(OUTSIDE) if self.has_entities else 0
        return [*found, *[outside] * (len(example.labels) - len(found))]

    def _named(self, rows: Sequence[Sequence[int]]) -> list[list[str]]:
        return [[self.labels[index] for index in row] for row in rows]

    def _described(self, text: str, labels: Sequence[str]) -> str:
        """Describe the entities of a text, or its labels, in words."""
        words = text.split(" ")
        if not self.has_entities:
            return " ".join(labels)
        spans = entity_spans(labels)
        return "; ".join(f"{kind}: {' '.join(words[a:b])}" for kind, a, b in spans) or "none"


def open_tag(recipe: TagRecipe) -> TuningJob:
    """Open the job of learning labels of words.

    See `data.rows.tagged` for how words and their labels may be written.

    Raises:
        ModernBertError: The model or the data cannot be used; see `LabelledTables.open`.
    """
    source = LabelledTables.open(recipe)
    label = source.label_column(TAGS)
    columns = TaggedColumns.find(source.train, source.data.text, label)
    given = columns.splitting(source.train, recipe.data.split_words or "punctuation")
    rows = {name: _read(table, columns, given) for name, table in source.tables.items()}
    splitting = WordSplitting.learnt(
        [words for words, _ in rows["train"]], recipe.data.split_words, given.apart
    )
    labels = recipe.data.labels or _learn(
        [each for _, tags in rows["train"] for each in tags], source
    )
    splits, notes = {}, []
    for name, table in source.tables.items():
        examples, cut = [], 0
        for index, (words, tags) in enumerate(rows[name]):
            one = Table(source=table.where(index), columns=(), rows=[])
            encoding = source.tokenizer.encode_words(words, max_seqlen=source.max_seqlen)
            firsts = first_tokens(encoding)
            targets = label_indices(one, tags, labels)
            examples.append(TaggedWords(encoding.token_ids, firsts, targets))
            cut += len(firsts) < len(words)
        if cut:
            notes.append(
                f"{table.source}: {cut:,} of {len(table):,} texts are longer than "
                f"{source.max_seqlen:,} tokens and are cut there"
            )
        splits[name] = Split(table.source, examples, [" ".join(words) for words, _ in rows[name]])
    targets_of_train = [each for example in splits["train"].examples for each in example.labels]
    weights = label_weights(targets_of_train, len(labels), recipe.training.class_weights)
    return label_job(
        source,
        "tag",
        Tagging(labels, weights),
        splits,
        TokenClassifier,
        ClassifierSettings(labels=labels, pooling="mean", splitting=splitting),
        use_of(
            "Tagger",
            "token-classification",
            "a label for each word of a text",
            '"A text with names."',
        ),
        notes=notes,
        facts={
            "words": columns.words,
            "words of a text": f"end at {splitting.at}",
            "longest sequence": source.max_seqlen,
            "tags": label,
            "labels": counts_of([each for _, tags in rows["train"] for each in tags], labels),
        },
    )


def _learn(names: Sequence[str], source: LabelledTables) -> tuple[str, ...]:
    """Return the labels, O first.

    Raises:
        InputError: There are fewer than two labels, or their marks are not written like B-.
    """
    labels = learn_labels(names, source.train.source)
    found = {label: _OTHER_MARK.fullmatch(label) for label in labels if label != OUTSIDE}
    marks = {match and (match[1] or match[2]) for match in found.values()}
    if OUTSIDE in labels and {"B", "I"} <= marks and None not in marks:
        raise InputError(
            f"{source.train.source}: tags such as {next(iter(found))!r} would not be joined to "
            "entities; write the mark first and a hyphen behind it, as in 'B-PER'"
        )
    return tuple(sorted(labels, key=lambda label: label != OUTSIDE))


def _read(
    table: Table, columns: TaggedColumns, splitting: WordSplitting
) -> list[tuple[list[str], list[str]]]:
    """Return the words and the names of the labels of each row.

    Raises:
        InputError: See `TaggedColumns.read`.
    """
    rows = []
    for index, (words, tags) in enumerate(columns.read(table, splitting)):
        rows.append((words, row_label_names(tags, table.where(index), columns.tags)))
    if len(rows) > 1 and all(len(words) == 1 for words, _ in rows):
        raise InputError(
            f"{table.source}: each of its {len(rows):,} rows has one word; give one sentence per "
            'row as lists, such as {"tokens": ["Ada"], "tags": ["B-PER"]}, or CoNLL columns'
        )
    return rows


def _flat(rows: Sequence[Sequence[int]]) -> list[int]:
    return [each for row in rows for each in row]
