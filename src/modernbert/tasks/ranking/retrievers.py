"""The jobs of retrievers: one vector per text, one per token, or weights of the vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.model.encoder import encoder_of
from modernbert.tasks.ranking.data import RetrievalData, as_judged_texts, read_retrieval_data
from modernbert.tasks.ranking.examples import RankingExamples
from modernbert.tasks.ranking.learners import Learner, sparse_learner, text_learner, token_learner
from modernbert.tasks.ranking.losses import flops
from modernbert.tasks.ranking.recipe import (
    LateInteractionRecipe,
    RetrievalLoss,
    RetrievalRows,
    RetrieveRecipe,
    SparseRecipe,
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
        lambda model, _seed: sparse_learner(replace(recipe, model=model)),
        penalty=penalty,
        gives="weights of its vocabulary for a text (SPLADE)",
        names=("SparseEmbedder", "SparseEncoder"),
        pipeline="feature-extraction",
    )


def _open(
    verb: str,
    recipe: RetrieveRecipe | LateInteractionRecipe | SparseRecipe,
    build: Callable[[str, int], Learner],
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
        build: Makes a learner from a model's folder and a seed.
        dims: As in `Retrieval`.
        penalty: As in `Retrieval`.
        gives: What the model computes, for its card.
        names: The classes that load the folder, here and in sentence-transformers.
        pipeline: The hub's name for the model's purpose.
    """
    read = partial(_judged, recipe.data)
    examples = RankingExamples[JudgedTexts].open(recipe, plain="in-batch", read=read)
    training: Any = replace(recipe.training, loss=cast(RetrievalLoss, examples.loss))
    learner = build(recipe.model, recipe.sweep.seeds[0])
    config = encoder_of(learner).config
    training.require_layers(config.num_layers)
    objective = Retrieval(
        learner.sides,
        examples.data,
        examples.held_out,
        training,
        scale=learner.scale if training.scale is None else training.scale,
        dims=dims,
        penalty=penalty,
    )
    own, other = names
    return TuningJob(
        verb=verb,
        phase=verb,
        recipe=replace(recipe, training=training),
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
        **examples.about(objective),
    )


def _save(module: nn.Module, folder: Path) -> None:
    assert isinstance(module, Learner)
    module.save(folder)


def _judged(rows: RetrievalRows, source: RetrievalData | str, split: str) -> JudgedTexts:
    """Return held-out queries with all documents to search.

    Args:
        rows: The rows of the recipe.
        source: Queries that were held out of the rows to learn from, or what to read.
        split: The split of a folder's judgements.
    """
    if isinstance(source, str):
        if is_judged_folder(Path(source)):
            return read_judged_texts(source, split)
        return as_judged_texts(read_retrieval_data(source, split, rows), source)
    if not is_judged_folder(Path(rows.train)):
        return as_judged_texts(source, source.source)
    judged = read_judged_texts(rows.train, rows.train_split)
    queries = {name: text for name, text in judged.queries.items() if text in source.known}
    judgements = {name: judged.judgements[name] for name in queries}
    return replace(judged, queries=queries, judgements=judgements, notes=())
