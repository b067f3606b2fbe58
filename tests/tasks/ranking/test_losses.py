"""Losses of retrieval: against the definitions, and against sentence-transformers' own."""

import importlib.util
from typing import Any

import pytest
import torch
from tests.rounding import assert_equal_but_for_rounding
from torch import Tensor, nn

from modernbert.tasks.ranking.learners import RaggedVectors
from modernbert.tasks.ranking.losses import binary, in_batch, kl_divergence, margin_mse, max_sim
from modernbert.tasks.ranking.retrieval import _cut

needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(values, dim=-1)


def ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.int64)


def with_gradients(loss: Any, *inputs: Tensor) -> tuple[float, list[Tensor]]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    value = loss(*leaves)
    value.backward()
    return value.item(), [leaf.grad for leaf in leaves if leaf.grad is not None]


def assert_same(own: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> None:
    num_terms = 3 * sum(each.numel() for each in own[1])  # there and back, over all vectors
    assert_equal_but_for_rounding(own[0], other[0], num_terms=num_terms)
    for mine, theirs in zip(own[1], other[1], strict=True):
        assert_equal_but_for_rounding(mine, theirs, num_terms=num_terms)


class Peer(nn.Module):
    """A model for their losses that gives the vectors that it is given."""

    similarity_fn_name = None

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        return features

    def get_embedding_dimension(self) -> int:
        return 8


def features(*columns: Tensor) -> list[dict[str, Tensor]]:
    return [{"sentence_embedding": each} for each in columns]


def test_max_sim_of_ragged_texts_and_its_gradients() -> None:
    lengths, document_lengths = torch.tensor([2, 4]), torch.tensor([3, 1, 5])

    def plain(queries: Tensor, documents: Tensor) -> Tensor:
        scores = [
            (query @ document.T).max(1).values.sum()
            for query in queries.split(lengths.tolist())
            for document in documents.split(document_lengths.tolist())
        ]
        return torch.stack(scores).square().sum()

    def own(queries: Tensor, documents: Tensor) -> Tensor:
        return max_sim(queries, lengths, documents, document_lengths).square().sum()

    vectors = draw(6, 8), draw(9, 8, seed=1)
    assert_same(with_gradients(own, *vectors), with_gradients(plain, *vectors))


def in_batch_of(scale: float, num_negatives: int) -> Any:
    def loss(queries: Tensor, *documents: Tensor) -> Tensor:
        scores = scale * max_sim(
            queries, ones(len(queries)), torch.cat(documents), ones(len(documents) * len(queries))
        )
        nothing = torch.zeros_like(scores, dtype=torch.bool)
        answers = torch.arange(len(queries))
        return in_batch(scores, answers, nothing) / len(queries)

    assert num_negatives >= 0
    return loss


@needs_peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_negatives", [0, 2])
def test_in_batch_is_multiple_negatives_ranking(num_negatives: int) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    columns = [draw(5, 8, seed=seed) for seed in range(2 + num_negatives)]
    theirs = MultipleNegativesRankingLoss(Peer(), scale=20.0)  # type: ignore[arg-type]
    other = with_gradients(lambda *each: theirs(features(*each), None), *columns)
    # Their cosine divides by the lengths, whose gradients are across the vectors.
    own = with_gradients(
        lambda *each: in_batch_of(20.0, num_negatives)(
            *(nn.functional.normalize(x, dim=-1) for x in each)
        ),
        *columns,
    )
    assert_same(own, other)


@needs_peer
@pytest.mark.filterwarnings("ignore")
def test_cut_vectors_are_matryoshka() -> None:
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    peer = Peer()
    inner = MultipleNegativesRankingLoss(peer, scale=20.0)  # type: ignore[arg-type]
    theirs = MatryoshkaLoss(peer, inner, matryoshka_dims=[8, 4, 2])  # type: ignore[arg-type]
    columns = [draw(5, 8, seed=seed) for seed in range(3)]

    def own(*each: Tensor) -> Tensor:
        losses = []
        for dim in (2, 4, None):
            cut = [_cut(RaggedVectors(x, ones(len(x))), dim).values for x in each]
            losses.append(in_batch_of(20.0, 1)(*(nn.functional.normalize(x, dim=-1) for x in cut)))
        return torch.stack(losses).sum()

    other = with_gradients(lambda *each: theirs(features(*each), None), *columns)
    assert_same(with_gradients(own, *columns), other)


def grouped(loss: Any, teacher: Tensor) -> Any:
    def total(queries: Tensor, *documents: Tensor) -> Tensor:
        scores = [
            max_sim(queries[row : row + 1], ones(1), torch.stack(own), ones(len(own)))[0]
            for row, own in enumerate(zip(*documents, strict=True))
        ]
        return loss(scores, list(teacher)) / len(queries)

    return total


@needs_peer
@pytest.mark.filterwarnings("ignore")
def test_margins_are_their_margins() -> None:
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    columns = [draw(5, 8, seed=seed) for seed in range(4)]
    teacher = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    margins = teacher[:, :1] - teacher[:, 1:]
    theirs = MarginMSELoss(Peer())  # type: ignore[arg-type]
    other = with_gradients(lambda *each: theirs(features(*each), margins), *columns)
    assert_same(with_gradients(grouped(margin_mse, teacher), *columns), other)


@needs_peer
@pytest.mark.filterwarnings("ignore")
def test_chances_are_their_distillation() -> None:
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    columns = [draw(5, 8, seed=seed) for seed in range(4)]
    teacher = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    theirs = DistillKLDivLoss(Peer())  # type: ignore[arg-type]
    other = with_gradients(lambda *each: theirs(features(*each), teacher), *columns)
    assert_same(with_gradients(grouped(kl_divergence, teacher), *columns), other)


@needs_peer
@pytest.mark.filterwarnings("ignore")
def test_late_interaction_is_theirs() -> None:
    from sentence_transformers.multi_vector_encoder.losses import (
        MultiVectorMultipleNegativesRankingLoss,
    )

    queries, documents = draw(4, 3, 8), draw(4, 6, 8, seed=1)
    mask = torch.arange(6) < torch.tensor([6, 2, 3, 1])[:, None]

    def peer(first: Tensor, second: Tensor) -> Tensor:
        theirs = MultiVectorMultipleNegativesRankingLoss(Peer())  # type: ignore[arg-type]
        columns = [
            {"token_embeddings": first, "attention_mask": torch.ones(4, 3)},
            {"token_embeddings": second, "attention_mask": mask.long()},
        ]
        return theirs(columns, None)

    def own(first: Tensor, second: Tensor) -> Tensor:
        scores = max_sim(first.flatten(0, 1), 3 * ones(4), second[mask], mask.sum(1))
        return in_batch(scores, torch.arange(4), torch.zeros_like(scores, dtype=torch.bool)) / 4

    assert_same(with_gradients(own, queries, documents), with_gradients(peer, queries, documents))


def test_other_answers_are_no_negatives() -> None:
    scores = torch.tensor([[1.0, 50.0], [0.0, 1.0]])
    left_out = torch.tensor([[False, True], [False, False]])
    answers = torch.tensor([0, 1])
    expected = nn.functional.cross_entropy(scores[1:], answers[1:])
    assert float(in_batch(scores, answers, left_out)) == pytest.approx(float(expected))


def test_binary_is_a_mean_over_each_query() -> None:
    scores = [torch.tensor([2.0, -1.0]), torch.tensor([0.5])]
    labels = [torch.tensor([1.0, 0.0]), torch.tensor([0.0])]
    first = (-torch.sigmoid(scores[0][0]).log() - torch.sigmoid(-scores[0][1]).log()) / 2
    second = -torch.sigmoid(-scores[1][0]).log()
    assert float(binary(scores, labels)) == pytest.approx(float(first + second))
