"""Section `contrastive`: steps of training a retriever, packed and padded, on equal weights.

Both protocols of packed-encoders 0.2 (github.com/pau-mensa/flash-modernbert) on a B200, as ratios:
16 queries of at most 128 tokens with 8 documents each of at most 2,048, the vector of [CLS]; and 32
queries of at most 8,192 tokens with 8 documents of at most 4,096, a vector a token, whose gradients
are cached and computed 8 texts at a time. Documents have about 1,886 tokens, as its have. Its
queries' lengths are not published; here they are about 70 and 600. Where the padded model does not
fit the memory, it gets half as many queries.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.cuda.anchors import Anchor, lognormal
from benchmarks.cuda.bench import Bench, Figures, Rows, theirs
from benchmarks.engines import pad
from modernbert.batch import PackedBatch
from modernbert.model.encoder import Encoder
from modernbert.tasks.ranking.losses import max_sim
from modernbert.training.computation import autocast

SINGLE = Anchor(figure=4.5, chip="b200")
LATE = Anchor(figure=7.0, chip="b200")
DOCUMENTS = 8
_SCALE = 50.0
_MINI_BATCH = 8

Texts = Sequence[list[int]]
Flat = Callable[[Texts], Tensor]
Loss = Callable[[Tensor, list[int], int], Tensor]


def contrastive(bench: Bench) -> Rows:
    """Queries a second of both ways to train, for `base` alone."""
    rows = bench.rows()
    for name, anchor, number, longest, query, longest_query, is_late in (
        ("single vector", SINGLE, 16, 2_048, 70, 128, False),
        ("late interaction", LATE, 32, 4_096, 600, 8_192, True),
    ):
        number, longest = (2, 128) if bench.tiny else (number, longest)
        lengths = lognormal(query, 0.5, 8, 128 if bench.tiny else longest_query, number)
        lengths += lognormal(1_886, 0.8, 64, longest, number * DOCUMENTS)
        texts = bench.sequences(lengths, bench.config(bench.sizes[0]).vocab_size)
        speeds: Figures = {}
        for who, made in (("ours", _ours), ("eager", _theirs)):
            module, flat = made(bench)
            speeds[f"{who} queries/s"] = _queries_a_second(
                bench, module, flat, texts, number, is_late
            )
            del module, flat
        ratio = float(speeds["ours queries/s"]) / float(speeds["eager queries/s"])
        rows[name] = {**speeds, **anchor.beside(ratio)}
    return rows


def _queries_a_second(
    bench: Bench, module: nn.Module, flat: Flat, texts: Texts, number: int, is_late: bool
) -> float:
    """With all queries, or with half as many until a step fits the memory."""
    queries, documents = texts[:number], texts[number:]
    while number:
        chosen = [*queries[:number], *documents[: number * DOCUMENTS]]
        step = Step(bench, module, flat, chosen, number, is_late=is_late)
        try:
            step()
            return number / min(bench.once(step) for _ in range(1 if bench.tiny else 2))
        except torch.OutOfMemoryError:
            step.optimizer.zero_grad()
            number //= 2
    raise torch.OutOfMemoryError("contrastive: not even one query fits the memory")


class Step:
    """Forward, backward and update; the first texts are queries, then come their documents."""

    def __init__(
        self,
        bench: Bench,
        module: nn.Module,
        flat: Flat,
        texts: Texts,
        num_queries: int,
        *,
        is_late: bool,
    ) -> None:
        self.bench, self.flat, self.num_queries, self.is_late = bench, flat, num_queries, is_late
        self.lengths = [len(text) for text in texts]
        if is_late:
            self.chunks = [*_by(texts[:num_queries]), *_by(texts[num_queries:])]
        else:
            self.chunks = [texts[:num_queries], texts[num_queries:]]
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=1e-6, fused=bench.is_cuda, weight_decay=0.01
        )

    def __call__(self) -> None:
        """Take the step."""
        if self.is_late:
            self._cached()
        else:
            with autocast(self.bench.device, "auto"):
                hidden = torch.cat([self.flat(chunk) for chunk in self.chunks])
            single_vector_loss(hidden.float(), self.lengths, self.num_queries).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _cached(self) -> None:
        """Vectors without gradients, the loss's gradients, then those of the model by chunks."""
        with torch.no_grad(), autocast(self.bench.device, "auto"):
            held = [self.flat(chunk)[:, :128].float() for chunk in self.chunks]
        vectors = torch.cat(held).requires_grad_()
        late_interaction_loss(vectors, self.lengths, self.num_queries).backward()
        assert vectors.grad is not None
        gradients = vectors.grad.split([len(each) for each in held])
        for chunk, gradient in zip(self.chunks, gradients, strict=True):
            with autocast(self.bench.device, "auto"):
                again = self.flat(chunk)[:, :128].float()
            again.backward(gradient)


def single_vector_loss(hidden: Tensor, lengths: list[int], num_queries: int) -> Tensor:
    """The cross entropy of each query's first document among all, of their [CLS] vectors."""
    firsts = torch.tensor([0, *lengths[:-1]], device=hidden.device).cumsum(0)
    vectors = functional.normalize(hidden[firsts])
    scores = _SCALE * vectors[:num_queries] @ vectors[num_queries:].T
    return _cross_entropy(scores)


def late_interaction_loss(vectors: Tensor, lengths: list[int], num_queries: int) -> Tensor:
    """The same of the sums of the largest products, a query at a time to save memory."""
    vectors = functional.normalize(vectors)
    each = vectors.split([*lengths[:num_queries], sum(lengths[num_queries:])])
    of_documents = torch.tensor(lengths[num_queries:], device=vectors.device)

    def scores_of(query: Tensor, documents: Tensor) -> Tensor:
        length = torch.tensor([len(query)], device=query.device)
        return max_sim(query, length, documents, of_documents) / len(query)

    rows = [checkpoint(scores_of, query, each[-1], use_reentrant=False) for query in each[:-1]]
    return _cross_entropy(_SCALE * torch.cat(rows))


def _cross_entropy(scores: Tensor) -> Tensor:
    return functional.cross_entropy(
        scores, DOCUMENTS * torch.arange(len(scores), device=scores.device)
    )


def _by(texts: Texts) -> Iterator[Texts]:
    for start in range(0, len(texts), _MINI_BATCH):
        yield texts[start : start + _MINI_BATCH]


def _ours(bench: Bench) -> tuple[nn.Module, Flat]:
    """Our encoder, compiled for batches of all shapes."""
    encoder: Encoder = bench.model(bench.sizes[0], compiled=False).encoder
    if bench.is_cuda:
        encoder.compile_layers(dynamic=True)

    def flat(texts: Texts) -> Tensor:
        batch = PackedBatch.from_sequences(texts)
        if bench.is_cuda:
            batch = batch.pin_memory()
        hidden: Tensor = encoder(batch.to(bench.device, non_blocking=bench.is_cuda))
        return hidden

    return encoder, flat


def _theirs(bench: Bench) -> tuple[nn.Module, Flat]:
    """Transformers' encoder with float32 weights under autocast, and the vectors of real tokens."""
    model = theirs(bench, bench.model(bench.sizes[0], compiled=False).encoder, "AutoModel").train()

    def flat(texts: Texts) -> Tensor:
        ids, mask = (each.to(bench.device) for each in pad(texts))
        hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden[mask.bool()]

    return model, flat
