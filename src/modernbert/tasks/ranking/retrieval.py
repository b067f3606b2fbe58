"""Training a retriever: the `Task` of a `Trainer` whose module is one of `learners`.

    examples -> a step's queries and documents -> vectors, pack by pack -> scores -> loss

With negatives in the batch all of a step's vectors meet in one loss. Where they are more than fit
in memory, each pack's activations are let go and computed again when its gradients are due, so
that a batch may be of any size (GradCache, arXiv 2101.06983).
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from modernbert.batch import PackedBatch
from modernbert.data.judged_texts import JudgedTexts
from modernbert.inference.batching import batch_tokens_for, packs
from modernbert.inference.inputs import EncodedText
from modernbert.inference.multi_vector_settings import Side
from modernbert.inference.ranking import rank_documents
from modernbert.tasks.ranking.data import RankedTexts, RetrievalData
from modernbert.tasks.ranking.examples import cut_notes
from modernbert.tasks.ranking.learners import Sides, Vectors
from modernbert.tasks.ranking.losses import in_batch, kl_divergence, margin_mse, max_sim
from modernbert.tasks.ranking.rankings import Rankings
from modernbert.tasks.ranking.recipe import RetrievalTrainingSettings
from modernbert.tasks.tuning.epochs import Epochs
from modernbert.training.task import Progress, Step

METRICS = ("ndcg@10", "recall@100", "mrr@10", "map@100")
_DEPTH = 100
_BLOCK_TEXTS = 256


class Retrieval:
    """Learning which documents answer a query.

    encode: texts of a side to token ids.
    data: the examples.
    dev: what to evaluate on; nothing is evaluated when None.
    scale: what similarities are multiplied by.

    `notes` says how many texts are cut.
    """

    def __init__(
        self,
        encode: Sides,
        data: RetrievalData,
        settings: RetrievalTrainingSettings,
        dev: JudgedTexts | None = None,
        *,
        scale: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.settings, self.dev = data, settings, dev
        self.encode, self.scale, self.device = encode, scale, torch.device(device)
        self.micro_batch_tokens = batch_tokens_for(self.device, settings.micro_batch_tokens)
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
        self.epochs = Epochs(
            lengths=[self._num_tokens(each) for each in data.examples],
            batch_size=settings.batch_size,
            batch_tokens=settings.batch_tokens,
        )

    def seeded(self, seed: int) -> Self:
        """The same with the rows in another order."""
        other = copy(self)
        other.epochs = replace(self.epochs, seed=seed)
        return other

    def on(self, held_out: JudgedTexts) -> Self:
        """The same, evaluated on other texts."""
        other = copy(self)
        other.dev = held_out
        return other

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The steps from a place on."""
        for rows, position in self.epochs.steps(progress.position):
            num_tokens = sum(self.epochs.lengths[row] for row in rows)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + num_tokens,
                position=position,
            )
            yield Step(
                micro_batches=[[self.data.examples[row] for row in rows]],
                progress=progress,
                num_targets=len(rows),
                num_tokens=num_tokens,
                fill=1.0,  # nothing is padded
            )

    def loss(self, module: nn.Module, micro_batch: Sequence[RankedTexts], *, step: int) -> Tensor:  # noqa: ARG002
        """The sum of the losses of a step's queries."""
        texts = list(dict.fromkeys(text for each in micro_batch for text in each.documents))
        queries = self._vectors(module, [each.query for each in micro_batch], "query")
        documents = self._vectors(module, texts, "document")
        with torch.autocast(self.device.type, enabled=False):
            losses = [
                self._loss(_cut(queries, dim), _cut(documents, dim), micro_batch, texts)
                for dim in self.settings.matryoshka_dims or (None,)
            ]
            if self.settings.matryoshka_dims:
                losses.append(self._loss(queries, documents, micro_batch, texts))
            return torch.stack(losses).sum()

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """How well the documents of `dev` are ranked for its queries."""
        found = self.rankings(module)
        return {} if found is None else found.scores([*METRICS, self.settings.metric])

    @torch.no_grad()
    def rankings(self, module: nn.Module) -> Rankings | None:
        """The best documents of `dev` for each of its queries; None without any."""
        if self.dev is None:
            return None
        query_ids, document_ids = list(self.dev.queries), list(self.dev.documents)
        queries = self._blocks(module, self.dev.queries.values(), "query")
        found = rank_documents(
            [vectors for block in queries for vectors in block],
            self._blocks(module, self.dev.documents.values(), "document"),
            _DEPTH,
        )
        return Rankings(
            queries=self.dev.queries,
            documents=self.dev.documents,
            found={
                query: [document_ids[row] for row in rows]
                for query, (_, rows) in zip(query_ids, found, strict=True)
            },
            judgements=self.dev.judgements,
        )

    def _loss(
        self,
        queries: Vectors,
        documents: Vectors,
        examples: Sequence[RankedTexts],
        texts: Sequence[str],
    ) -> Tensor:
        places = {text: place for place, text in enumerate(texts)}
        if self.settings.loss == "in-batch":
            scores = self.scale * max_sim(*queries, *documents)
            answers = [places[each.documents[0]] for each in examples]
            left_out = torch.zeros_like(scores, dtype=torch.bool)
            for row, each in enumerate(examples):
                known = [places[text] for text in self.data.known[each.query] if text in places]
                left_out[row, [place for place in known if place != answers[row]]] = True
            return in_batch(scores, torch.tensor(answers, device=scores.device), left_out)
        vectors = documents.split()
        own = [
            self.scale
            * max_sim(
                *Vectors.join([query]), *Vectors.join([vectors[places[t]] for t in each.documents])
            )[0]
            for query, each in zip(queries.split(), examples, strict=True)
        ]
        teacher = [torch.tensor(each.scores, device=self.device) for each in examples]
        return (margin_mse if self.settings.loss == "margin" else kl_divergence)(own, teacher)

    def _vectors(self, module: nn.Module, texts: Sequence[str], side: Side) -> Vectors:
        """The vectors of texts, in their order; with gradients, where they are wanted."""
        ids = [self._ids[side][text] for text in texts]
        chosen = list(packs([len(each) for each in ids], self.micro_batch_tokens))
        found: dict[int, Tensor] = {}
        for pack in chosen:
            batch = PackedBatch.from_sequences([ids[row] for row in pack], device=self.device)
            if len(chosen) > 1 and torch.is_grad_enabled():
                vectors = checkpoint(module, batch, side, use_reentrant=False)
            else:
                vectors = module(batch, side)
            found.update(zip(pack, vectors.split(), strict=True))
        return Vectors.join([found[row] for row in range(len(texts))])

    def _blocks(self, module: nn.Module, texts: Any, side: Side) -> Iterator[list[Any]]:
        """The vectors of any number of texts as arrays, in lists."""
        given = list(texts)
        for start in range(0, len(given), _BLOCK_TEXTS):
            block = given[start : start + _BLOCK_TEXTS]
            ids = [each.token_ids for each in self.encode(block, side)]
            found: dict[int, Any] = {}
            for pack in packs([len(each) for each in ids], self.micro_batch_tokens):
                batch = PackedBatch.from_sequences([ids[row] for row in pack], device=self.device)
                parts = module(batch, side).split()
                found.update((row, x.cpu().numpy()) for row, x in zip(pack, parts, strict=True))
            yield [found[row] for row in range(len(block))]

    def _num_tokens(self, example: RankedTexts) -> int:
        documents = self._ids["document"]
        return len(self._ids["query"][example.query]) + sum(
            len(documents[text]) for text in example.documents
        )


def _cut(vectors: Vectors, dim: int | None) -> Vectors:
    """The first numbers of each vector, again of length 1; all when None."""
    if dim is None:
        return vectors
    return Vectors(functional.normalize(vectors.values[:, :dim], dim=-1), vectors.lengths)


def _encoded(encode: Sides, examples: Sequence[RankedTexts]) -> dict[str, dict[str, EncodedText]]:
    """Each text of each side, as token ids."""
    queries = list(dict.fromkeys(each.query for each in examples))
    documents = list(dict.fromkeys(text for each in examples for text in each.documents))
    return {
        "query": dict(zip(queries, encode(queries, "query"), strict=True)),
        "document": dict(zip(documents, encode(documents, "document"), strict=True)),
    }
