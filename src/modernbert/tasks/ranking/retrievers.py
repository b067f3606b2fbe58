"""The jobs of retrievers: one vector per text, one per token, or weights of the vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.data.settings import FileSettings
from modernbert.metrics.ranking import ranking_scores
from modernbert.model.encoder import encoder_of
from modernbert.tasks.ranking.data import (
    RetrievalData,
    as_judged_texts,
    read_retrieval_data,
)
from modernbert.tasks.ranking.examples import (
    fingerprint,
    held_out_notes,
    mixture_of,
    prepared,
    split_sizes,
    training_data,
)
from modernbert.tasks.ranking.learners import (
    SparseLearner,
    TextLearner,
    TokenLearner,
    sparse_learner,
    text_learner,
    token_learner,
)
from modernbert.tasks.ranking.losses import flops
from modernbert.tasks.ranking.recipe import (
    LateInteractionRecipe,
    RetrievalLoss,
    RetrievalRows,
    RetrieveRecipe,
    SparseRecipe,
    VectorTraining,
)
from modernbert.tasks.ranking.retrieval import Retrieval
from modernbert.tasks.tuning.job import ModelUse, TuningJob


def open_retrieve(recipe: RetrieveRecipe) -> TuningJob:
    """Open the job of learning one vector per text.

    Raises:
        ModernBertError: The model or the data cannot be used.
    """
    dims = recipe.training.matryoshka_dims
    return _open(
        "retrieve",
        recipe,
        recipe.data,
        recipe.training,
        lambda model, _seed: text_learner(replace(recipe, model=model)),
        dims=(*dims, None),
        gives="one vector for a text",
        names=("Embedder", "SentenceTransformer"),
    )


def open_late_interaction(recipe: LateInteractionRecipe) -> TuningJob:
    """Open the job of learning one vector per token.

    Raises:
        ModernBertError: The model or the data cannot be used.
    """
    return _open(
        "late-interaction",
        recipe,
        recipe.data,
        recipe.training,
        lambda model, seed: token_learner(replace(recipe, model=model), seed),
        gives="one vector for each token of a text",
        names=("MultiVectorEmbedder", "MultiVectorEncoder"),
    )


def open_sparse(recipe: SparseRecipe) -> TuningJob:
    """Open the job of learning weights of the vocabulary for texts (SPLADE).

    Raises:
        ModernBertError: The model or the data cannot be used.
    """
    training = recipe.training

    def penalty(queries: Tensor, documents: Tensor, done: float) -> Tensor:
        # From nothing to the whole over the first third, quadratically (arXiv 2107.05720);
        # penalised from the first step on, a model learns to give no weights at all.
        factor = min(1.0, 3 * done) ** 2
        return factor * (
            training.query_regularization * flops(queries)
            + training.document_regularization * flops(documents)
        )

    return _open(
        "sparse",
        recipe,
        recipe.data,
        recipe.training,
        lambda model, _seed: sparse_learner(replace(recipe, model=model)),
        penalty=penalty,
        gives="weights of its vocabulary for a text (SPLADE)",
        names=("SparseEmbedder", "SparseEncoder"),
        pipeline="feature-extraction",
    )


def _open(
    verb: str,
    recipe: RetrieveRecipe | LateInteractionRecipe | SparseRecipe,
    rows: RetrievalRows,
    training: VectorTraining,
    build: Callable[[str, int], TextLearner | TokenLearner | SparseLearner],
    *,
    dims: Sequence[int | None] = (None,),
    penalty: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    gives: str,
    names: tuple[str, str],
    pipeline: str = "sentence-similarity",
) -> TuningJob:
    """Open the job of a verb that trains a retriever.

    Args:
        verb: The name of the verb on the command line.
        recipe: The verb's recipe.
        rows: The recipe's data.
        training: The recipe's training settings.
        build: Makes a learner from a model's folder and a seed.
        dims: As in `Retrieval`.
        penalty: As in `Retrieval`.
        gives: What the model computes, for its card.
        names: The classes that load the folder, here and in sentence-transformers.
        pipeline: The hub's name for the model's purpose.
    """
    ranking_scores({}, {"none": {}}, [training.metric])  # an unknown one is refused here
    data, held = training_data(rows)
    given = prepared(rows, data, training.loss, plain="in-batch")
    training = replace(training, loss=cast(RetrievalLoss, given.loss))
    chosen: Any = training  # of the class that the recipe has
    recipe = replace(recipe, training=chosen)
    splits = {"dev": rows.dev_split, "test": rows.test_split}
    held_out = {} if held is None else {"dev": _judged_of(held, rows)}
    held_out |= {
        name: _judged(source, splits[name], rows)
        for name, source in rows.sources.items()
        if name in splits
    }
    learner = build(recipe.model, recipe.sweep.seeds[0])
    config = encoder_of(learner).config
    training.require_layers(config.num_layers)
    scale = learner.scale if training.scale is None else training.scale
    objective = Retrieval(
        learner.sides,
        given.data,
        held_out,
        training,
        scale=scale,
        dims=dims,
        penalty=penalty,
    )
    own, other = names
    return TuningJob(
        verb=verb,
        phase=verb,
        recipe=recipe,
        config=config,
        objective=objective,
        first=lambda seed: build(recipe.model, seed),
        load=lambda folder: build(str(folder), recipe.sweep.seeds[0]),
        save=_save,
        use=ModelUse(
            library="sentence-transformers",
            pipeline=pipeline,
            gives=gives,
            example=f'from modernbert import {own}\n\nmodel = {own}.from_pretrained("FOLDER")\n'
            'print(model.encode_query(["A question?"]))',
            also=f'sentence-transformers loads it as well: `{other}("FOLDER")`.',
        ),
        splits=split_sizes(rows, given.data, held_out),
        fingerprint=fingerprint(rows, given.data, held_out),
        notes=[*given.notes, *held_out_notes(held_out), *objective.notes],
        facts={
            "examples": len(given.data.examples),
            "learned from": given.summary(objective.num_cut),
            "loss": given.loss,
        },
        mixture=mixture_of(rows, given.data.examples),
        plain=lambda: {name: objective.plain_scores(name) for name in held_out},
        plain_name="BM25",
    )


def _save(module: nn.Module, folder: Path) -> None:
    assert isinstance(module, TextLearner | TokenLearner | SparseLearner)
    module.save(folder)


def _judged_of(held: RetrievalData, rows: RetrievalRows) -> JudgedTexts:
    """Return held-out queries, with all documents of the folder or the rows to search."""
    if not is_judged_folder(Path(rows.train)):
        return as_judged_texts(held, held.source)
    judged = read_judged_texts(rows.train, rows.train_split)
    queries = {name: text for name, text in judged.queries.items() if text in held.known}
    judgements = {name: judged.judgements[name] for name in queries}
    return replace(judged, queries=queries, judgements=judgements, notes=())


def _judged(source: str, split: str, settings: FileSettings) -> JudgedTexts:
    if is_judged_folder(Path(source)):
        return read_judged_texts(source, split)
    return as_judged_texts(read_retrieval_data(source, split, settings), source)
