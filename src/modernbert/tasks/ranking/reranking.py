"""Training a reranker, which reads a query and a document together: the `Task` of a `Trainer`."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.inference.batching import batch_tokens_for, packs
from modernbert.inference.inputs import EncodedText, Text, TextEncoder
from modernbert.metrics.ranking import ranked
from modernbert.tasks.ranking.data import RankedTexts, RetrievalData
from modernbert.tasks.ranking.examples import cut_notes
from modernbert.tasks.ranking.losses import binary, kl_divergence, margin_mse
from modernbert.tasks.ranking.rankings import Rankings
from modernbert.tasks.ranking.recipe import RetrievalTrainingSettings
from modernbert.tasks.tuning.epochs import Epochs
from modernbert.tasks.tuning.fine_tuning import outputs_of
from modernbert.training.task import Progress, Step

METRICS = ("ndcg@10", "mrr@10", "map@100")


class Reranking:
    """Learning how well documents answer a query, from all documents of a query at once.

    encode: pairs to token ids, cut where they are too long.
    data, dev: the examples; nothing is evaluated without any of `dev`.

    `notes` says how many pairs are cut.
    """

    def __init__(
        self,
        encode: TextEncoder,
        data: RetrievalData,
        settings: RetrievalTrainingSettings,
        dev: RetrievalData | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.settings, self.device = data, settings, torch.device(device)
        self.micro_batch_tokens = batch_tokens_for(self.device, settings.micro_batch_tokens)
        self.scale = 1.0 if settings.scale is None else settings.scale
        self._encode, self._dev = encode, [] if dev is None else merged(dev)
        pairs = [self._encoded(example) for example in data.examples]
        self.notes = cut_notes(data.source, "pairs", [each for row in pairs for each in row])
        self._ids = [[each.token_ids for each in row] for row in pairs]
        self.epochs = Epochs(
            lengths=[sum(map(len, ids)) for ids in self._ids],
            batch_size=settings.batch_size,
            batch_tokens=settings.batch_tokens,
        )

    def seeded(self, seed: int) -> Self:
        """The same with the rows in another order."""
        other = copy(self)
        other.epochs = replace(self.epochs, seed=seed)
        return other

    def on(self, held_out: RetrievalData) -> Self:
        """The same, evaluated on other examples."""
        other = copy(self)
        other._dev = merged(held_out)
        return other

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The steps from a place on; a query's documents stay together."""
        lengths = self.epochs.lengths
        for rows, position in self.epochs.steps(progress.position):
            num_tokens = sum(lengths[row] for row in rows)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + num_tokens,
                position=position,
            )
            parts = packs([lengths[row] for row in rows], self.micro_batch_tokens)
            yield Step(
                micro_batches=[[rows[place] for place in part] for part in parts],
                progress=progress,
                num_targets=len(rows),
                num_tokens=num_tokens,
                fill=1.0,  # nothing is padded
            )

    def loss(self, module: nn.Module, micro_batch: Sequence[int], *, step: int) -> Tensor:  # noqa: ARG002
        """The sum of the losses of some queries."""
        ids = [self._ids[row] for row in micro_batch]
        batch = PackedBatch.from_sequences([x for pair in ids for x in pair], device=self.device)
        outputs = self.scale * outputs_of(module, batch).squeeze(1)
        scores = outputs.split([len(each) for each in ids])
        examples = [self.data.examples[row] for row in micro_batch]
        if self.settings.loss == "binary":
            return binary(scores, [self._labels(example) for example in examples])
        teacher = [torch.tensor(example.scores, device=self.device) for example in examples]
        return (margin_mse if self.settings.loss == "margin" else kl_divergence)(scores, teacher)

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """How well the documents of each query of `dev` are ranked."""
        found = self.rankings(module)
        return {} if found is None else found.scores([*METRICS, self.settings.metric])

    @torch.no_grad()
    def rankings(self, module: nn.Module) -> Rankings | None:
        """The documents of each query of `dev`, the best first; None without any."""
        if not self._dev:
            return None
        documents: dict[str, str] = {}
        found, judgements = {}, {}
        for number, example in enumerate(self._dev):
            scores = self._scores(module, self._pairs(example))
            names = [f"{number}.{place}" for place in range(len(scores))]
            documents.update(zip(names, example.documents, strict=True))
            found[str(number)] = ranked(dict(zip(names, scores, strict=True)))
            judgements[str(number)] = dict.fromkeys(names[: example.relevant], 1)
        queries = {str(number): example.query for number, example in enumerate(self._dev)}
        return Rankings(queries=queries, documents=documents, found=found, judgements=judgements)

    def _scores(self, module: nn.Module, ids: Sequence[list[int]]) -> list[float]:
        found: dict[int, float] = {}
        for pack in packs([len(each) for each in ids], self.micro_batch_tokens):
            batch = PackedBatch.from_sequences([ids[place] for place in pack], device=self.device)
            found.update(zip(pack, outputs_of(module, batch).squeeze(1).tolist(), strict=True))
        return [found[place] for place in range(len(ids))]

    def _pairs(self, example: RankedTexts) -> list[list[int]]:
        return [each.token_ids for each in self._encoded(example)]

    def _encoded(self, example: RankedTexts) -> list[EncodedText]:
        pairs: list[Text] = [(example.query, text) for text in example.documents]
        return self._encode(pairs)

    def _labels(self, example: RankedTexts) -> Tensor:
        labels = torch.zeros(len(example.documents), device=self.device)
        labels[: example.relevant] = 1
        return labels


def merged(data: RetrievalData) -> list[RankedTexts]:
    """All documents of a query in one example, those that answer it first; without such, none."""
    documents: dict[str, dict[str, None]] = {}
    for each in data.examples:
        documents.setdefault(each.query, {}).update(dict.fromkeys(each.documents))
    return [
        RankedTexts(
            query=query,
            documents=tuple(sorted(texts, key=lambda text: text not in data.known[query])),
            relevant=len(data.known[query]),
        )
        for query, texts in documents.items()
        if data.known[query]
    ]
