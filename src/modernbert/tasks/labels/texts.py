"""Texts, and pairs of texts, as the examples of a `Job`: one output vector each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modernbert.data.rows.table import Table
from modernbert.data.rows.text_columns import TextColumns
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.tasks.labels.job import Criterion, E, LabelledTables, Split
from modernbert.tasks.labels.recipe import LabelledPairs
from modernbert.tasks.tuning.job import Job
from modernbert.tasks.tuning.page import shown


def text_job(
    source: LabelledTables,
    criterion: Criterion[E],
    make: Mapping[str, Sequence[Callable[[list[int]], E]]],
    *,
    verb: str,
    settings: ClassifierSettings,
    facts: Mapping[str, Any],
) -> Job:
    """The job of learning from the texts of some tables.

    Args:
        source: The tables.
        criterion: What outputs should be.
        make: For each split and each of its rows, what makes an example of the row's token ids.
        verb: Its name on the command line.
        settings: Of the model's head.
        facts: More about the data.

    Raises:
        DocumentError: No column of texts, or a row without one.
    """
    assert isinstance(source.data, LabelledPairs)
    columns = TextColumns.find(source.train, source.data.text, source.data.text_pair)
    encoder = TextEncoder(source.tokenizer, source.max_seqlen)
    splits, notes = {}, []
    for name, table in source.tables.items():
        texts = columns.read(table)
        encoded = encoder(texts)
        notes += _notes(table, texts, encoded, source.max_seqlen)
        splits[name] = Split(
            table.source,
            [each(row.token_ids) for each, row in zip(make[name], encoded, strict=True)],
            [shown(text) for text in texts],
        )
    return source.job(
        verb,
        criterion,
        splits,
        SequenceClassifier,
        settings,
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
