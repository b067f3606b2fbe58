"""Training retrievers: the jobs, and the `Objective` whose module is one of `learners`.

    rows -> a step's queries and documents -> vectors, pack by pack -> scores -> loss

With in-batch negatives, all vectors of a step enter one loss: each query is compared with all
documents of the step, including those of other processes. `computed_together` gives the vectors of
all texts to every process, whichever process computed them, and returns their gradients. Each
process then adds up the losses of its own queries. A text that occurs more than once in a step is
computed once. So neither the number of processes nor the size of memory changes a step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.inference.batching import batch_tokens_for
from modernbert.inference.embedder_folder import Side
from modernbert.inference.inputs import EncodedText
from modernbert.inference.similarity import rank_documents
from modernbert.metrics.ranking import ranking_scores
from modernbert.model.encoder import encoder_of
from modernbert.tasks.ranking.data import (
    RankedTexts,
    RetrievalData,
    as_judged_texts,
    read_retrieval_data,
)
from modernbert.tasks.ranking.examples import RankingExamples, cut_notes
from modernbert.tasks.ranking.learners import (
    Learner,
    RaggedVectors,
    Sides,
    sparse_learner,
    text_learner,
    token_learner,
)
from modernbert.tasks.ranking.losses import (
    DISTILLATION,
    IN_BATCH,
    LISTWISE,
    flops,
    max_sim,
    too_near,
)
from modernbert.tasks.ranking.rankings import Rankings, word_scores
from modernbert.tasks.ranking.recipe import (
    LateInteractionRecipe,
    RetrievalLoss,
    RetrievalRows,
    RetrieveRecipe,
    SparseRecipe,
    VectorTraining,
)
from modernbert.tasks.tuning.job import HeldOutSplit, ModelUse, Review, TuningJob
from modernbert.tasks.tuning.task import Pack, computed_together, own_rows
from modernbert.training.distributed import Group

METRICS = ("ndcg@10", "recall@100", "mrr@10", "map@100")
_DEPTH = 100
_BLOCK_TEXTS = 256


class Retrieval:
    """Learns which documents answer a query.

    `notes` says how many texts are truncated, and `num_cut` counts them.

    Args:
        encode: Encodes the texts of queries and documents.
        data: The encoded queries with their documents.
        held_out: What to evaluate on, by the name of the split.
        training: How to train; its loss is the one that was chosen.
        scale: The factor of similarities.
        dims: The numbers of leading dimensions that should work alone; None for all of them.
        penalty: Computed from all vectors of queries and documents of a step and the fraction of
            the run that is done; added to the mean loss of a query.
    """

    whole_steps = True

    def __init__(
        self,
        encode: Sides,
        data: RetrievalData,
        held_out: Mapping[str, JudgedTexts],
        training: VectorTraining,
        *,
        scale: float,
        dims: Sequence[int | None] = (None,),
        penalty: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    ) -> None:
        self.penalty = penalty
        self.encode, self.data, self.held_out = encode, data, held_out
        self.training, self.scale, self.dims = training, scale, dims
        self.metric = training.metric
        encoded = _encoded(encode, data.examples)
        self._ids = {
            side: {text: each.token_ids for text, each in texts.items()}
            for side, texts in encoded.items()
        }
        self.notes = [
            note
            for side, name in (("query", "queries"), ("document", "documents"))
            for note in cut_notes(data.source, name, list(encoded[side].values()))
        ]
        self.num_cut = sum(
            each.is_truncated for texts in encoded.values() for each in texts.values()
        )
        self.lengths = [self._num_tokens(each) for each in data.examples]

    def num_targets(self, _row: int) -> int:
        return 1

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, done: float, /) -> Tensor:
        """Return the sum of the losses of this process's queries."""
        examples = [self.data.examples[row] for row in rows]
        own = own_rows(range(len(rows)), group)
        texts = list(dict.fromkeys(text for each in examples for text in each.documents))
        queries = self._vectors(module, [each.query for each in examples], "query", group)
        documents = self._vectors(module, texts, "document", group)
        # A process without queries of its own takes part with a loss of zero all the same.
        total = 0 * (sum(each.sum() for each in queries) + sum(each.sum() for each in documents))
        if not own:
            return torch.as_tensor(total)
        chosen = RaggedVectors.join([queries[place] for place in own])
        found = RaggedVectors.join(documents)
        mine = [examples[place] for place in own]
        with torch.autocast(group.device.type, enabled=False):
            losses = [
                self._loss(_cut(chosen, dim), _cut(found, dim), mine, texts) for dim in self.dims
            ]
            if self.penalty is not None:
                parts = RaggedVectors.join(queries).values, found.values
                # Of the whole step, so this process adds the share that its queries have of it.
                losses.append(len(own) * self.penalty(*parts, done))
            return torch.stack(losses).sum() + total

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Compute how well the documents of a split are ranked for its queries."""
        if split not in self.held_out:
            return {}
        return self.rankings(module, split, group).scores([*METRICS, self.metric])

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """Return the queries that are answered worst."""
        return self.rankings(module, split, group).review(self.metric)

    def plain_scores(self, split: str) -> dict[str, float]:
        """Compute how well BM25 ranks the documents of a split; empty where it is missing."""
        judged = self.held_out[split]
        names = list(judged.documents)
        found = word_scores(judged.documents.values(), judged.queries.values(), _DEPTH)
        ranked = {
            query: [names[place] for place in scores]
            for query, scores in zip(judged.queries, found, strict=False)
        }
        return ranking_scores(ranked, judged.judgements, [self.metric]) if ranked else {}

    @torch.no_grad()
    def rankings(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Rankings:
        """Return the best documents of a split for each of its queries."""
        judged = self.held_out[split]
        query_ids, document_ids = list(judged.queries), list(judged.documents)
        queries = self._blocks(module, judged.queries.values(), "query", group)
        found = rank_documents(
            [vectors for block in queries for vectors in block],
            self._blocks(module, judged.documents.values(), "document", group),
            _DEPTH,
        )
        return Rankings(
            queries=judged.queries,
            documents=judged.documents,
            found={
                query: [document_ids[row] for row in rows]
                for query, (_, rows) in zip(query_ids, found, strict=True)
            },
            judgements=judged.judgements,
        )

    def _loss(
        self,
        queries: RaggedVectors,
        documents: RaggedVectors,
        examples: Sequence[RankedTexts],
        texts: Sequence[str],
    ) -> Tensor:
        places = {text: place for place, text in enumerate(texts)}
        loss = str(self.training.loss)
        if loss in IN_BATCH:
            scores = max_sim(*queries, *documents)
            first = [places[each.documents[0]] for each in examples]
            answers = torch.tensor(first, device=scores.device)
            margin, ratio = self.training.negative_margin, self.training.negative_ratio
            left_out = too_near(scores.detach(), answers, margin, ratio)
            for row, each in enumerate(examples):
                known = [places[text] for text in self.data.known[each.query] if text in places]
                left_out[row, [place for place in known if place != first[row]]] = True
            return IN_BATCH[loss](self.scale * scores, answers, left_out)
        vectors = documents.split()
        own = [
            self.scale
            * max_sim(
                *RaggedVectors.join([query]),
                *RaggedVectors.join([vectors[places[t]] for t in each.documents]),
            )[0]
            for query, each in zip(queries.split(), examples, strict=True)
        ]
        wanted = [torch.tensor(each.wanted, device=queries.values.device) for each in examples]
        return {**DISTILLATION, **LISTWISE}[loss](own, wanted)

    def _vectors(
        self, module: nn.Module, texts: Sequence[str], side: Side, group: Group
    ) -> list[Tensor]:
        """Compute the vectors of each text, (num_vectors, dim), with gradients if enabled."""
        ids = [self._ids[side][text] for text in texts]
        return self._computed(module, ids, side, group)

    def _computed(
        self, module: nn.Module, ids: Sequence[list[int]], side: Side, group: Group
    ) -> list[Tensor]:
        def compute(pack: Pack) -> Sequence[Tensor]:
            sequences = [ids[place] for place in pack.places]
            batch = PackedBatch.from_sequences(sequences, device=group.device)
            vectors: RaggedVectors = module(batch, side)
            return vectors.split()

        batch_tokens = batch_tokens_for(group.device, self.training.micro_batch_tokens)
        return computed_together(compute, [len(each) for each in ids], batch_tokens, group)

    def _blocks(
        self, module: nn.Module, texts: Any, side: Side, group: Group
    ) -> Iterator[list[Any]]:
        """Yield the vectors of any number of texts as arrays, in lists."""
        given = list(texts)
        for start in range(0, len(given), _BLOCK_TEXTS):
            ids = [
                each.token_ids for each in self.encode(given[start : start + _BLOCK_TEXTS], side)
            ]
            yield [each.cpu().numpy() for each in self._computed(module, ids, side, group)]

    def _num_tokens(self, example: RankedTexts) -> int:
        documents = self._ids["document"]
        return len(self._ids["query"][example.query]) + sum(
            len(documents[text]) for text in example.documents
        )


def _cut(vectors: RaggedVectors, dim: int | None) -> RaggedVectors:
    """Return the first dimensions of each vector, scaled to length 1 again; all if None."""
    if dim is None:
        return vectors
    return RaggedVectors(functional.normalize(vectors.values[:, :dim], dim=-1), vectors.lengths)


def _encoded(encode: Sides, examples: Sequence[RankedTexts]) -> dict[str, dict[str, EncodedText]]:
    queries = list(dict.fromkeys(each.query for each in examples))
    documents = list(dict.fromkeys(text for each in examples for text in each.documents))
    return {
        "query": dict(zip(queries, encode(queries, "query"), strict=True)),
        "document": dict(zip(documents, encode(documents, "document"), strict=True)),
    }


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
