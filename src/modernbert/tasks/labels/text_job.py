"""A `Job` over texts and pairs of texts: one output vector a text, whatever it means."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modernbert.data.rows.table import Table
from modernbert.data.rows.text_columns import TextColumns
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.model.heads import ClassifierSettings, ProblemType, SequenceClassifier
from modernbert.tasks.labels.job import Job, ReviewedObjective, Source, Split, Verb
from modernbert.tasks.tuning.fine_tuning import E
from modernbert.tasks.tuning.first_model import first_model
from modernbert.tasks.tuning.page import shown


def text_job(
    source: Source,
    objective: ReviewedObjective[E],
    make: Mapping[str, Sequence[Callable[[list[int]], E]]],
    *,
    verb: Verb,
    labels: Sequence[str],
    problem: ProblemType,
    facts: Mapping[str, Any],
) -> Job[E]:
    """The texts of a source as examples.

    make: for each split and each of its rows, what makes an example of the row's token ids.
    labels, problem: of the model's outputs.

    Raises:
        DocumentError: no column of texts, or a row without one.
    """
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
    settings = ClassifierSettings(
        labels=tuple(labels), pooling=source.recipe.training.pooling, problem=problem
    )
    return Job(
        verb=verb,
        objective=objective,
        tokenizer=source.tokenizer,
        config=source.config,
        build=lambda seed: first_model(
            SequenceClassifier, settings, source.recipe.model, seed=seed
        ),
        load=SequenceClassifier.from_pretrained,
        notes=notes,
        facts={"texts": str(columns), "longest sequence": source.max_seqlen, **facts},
        **splits,
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
