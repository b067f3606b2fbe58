"""The examples of a recipe as its loss wants them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from modernbert.errors import InputError
from modernbert.inference.inputs import EncodedText
from modernbert.tasks.ranking.data import RetrievalData, read_retrieval_data
from modernbert.tasks.ranking.recipe import Loss, RetrievalRecipe

Kind = Literal["retrieve", "late-interaction", "rerank"]


def prepared(kind: Kind, recipe: RetrievalRecipe) -> tuple[RetrievalData, Loss, list[str]]:
    """The examples as the loss wants them, the loss, and what a user should know.

    Raises:
        DocumentError: they cannot be read.
        InputError: none of them can be used, or the loss needs what they lack.
    """
    settings = recipe.data
    data = read_retrieval_data(settings.train, settings.train_split)
    has_scores = all(each.scores is not None for each in data.examples)
    plain: Loss = "binary" if kind == "rerank" else "in-batch"
    loss = recipe.training.loss or ("margin" if has_scores else plain)
    if loss not in (plain, "margin", "kl"):
        raise InputError(f"loss: got {loss!r}, expected {plain}, margin or kl for {kind}")
    if loss in ("margin", "kl"):
        for row, each in enumerate(data.examples, start=1):
            if each.scores is None or len(each.documents) < 2:
                raise InputError(
                    f"{data.source}, example {row}: the loss {loss!r} needs scores of a positive "
                    f"and of one negative or more; take {plain!r}, or add them"
                )
    most = settings.num_negatives
    kept, examples = [], data.examples
    for each in examples:
        if loss == "in-batch" and not each.relevant:
            continue
        end = None if most is None else each.relevant + most
        scores = None if each.scores is None else each.scores[:end]
        documents, relevant = each.documents[:end], each.relevant
        if loss == "in-batch":  # one answer, and what is no answer
            documents, relevant = (documents[0], *documents[each.relevant :]), 1
        kept.append(replace(each, documents=documents, relevant=relevant, scores=scores))
    if not kept:
        raise InputError(f"{data.source}: no query has a document that answers it")
    notes = [f"{data.source}: {len(kept):,} examples, {len(data.known):,} queries"]
    if left := len(examples) - len(kept):
        notes.append(f"{data.source}: {left:,} queries without an answer are left out")
    return replace(data, examples=kept), loss, notes


def cut_notes(source: str, name: str, texts: Sequence[EncodedText]) -> list[str]:
    """How many texts were too long, in a line; none where nothing is cut.

    name: what they are, such as "documents".
    """
    cut = [len(each.token_ids) for each in texts if each.is_truncated]
    if not cut:
        return []
    return [
        f"{source}: {len(cut):,} of {len(texts):,} {name} are longer than {max(cut):,} tokens and "
        "are cut there"
    ]
