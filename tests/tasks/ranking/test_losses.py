"""Losses of retrieval: against the definitions, and against sentence-transformers' own."""

import importlib.util
from typing import Any

import pytest
import torch
from tests.rounding import assert_equal_but_for_rounding
from torch import Tensor, nn

from modernbert.tasks.ranking.learners import RaggedVectors
from modernbert.tasks.ranking.losses import (
    binary,
    in_batch,
    kl_divergence,
    lambda_loss,
    list_net,
    margin_mse,
    max_sim,
    squared_error,
    too_near,
)
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


class ScoringPeer(nn.Module):
    """A cross-encoder for their losses that gives the scores that it is given as texts."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        nn.Module.__init__(self)
        self.scores = scores

    def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, Tensor]:
        return {"chosen": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self.scores[features["chosen"]]}


def peers_loss(name: str, scores: Tensor, wanted: list[Tensor]) -> Tensor:
    """A loss of sentence-transformers; it is the mean over queries of equal numbers of pairs."""
    from sentence_transformers.cross_encoder import CrossEncoder, losses

    peer = type("Peer", (ScoringPeer, CrossEncoder), {})(scores)  # one of theirs is asked for
    loss = getattr(losses, name)(peer)
    places = iter(map(str, range(len(scores))))
    documents = [[next(places) for _ in each] for each in wanted]
    queries = ["query"] * len(wanted)
    if name == "MSELoss":
        flat = [
            (query, each) for query, row in zip(queries, documents, strict=True) for each in row
        ]
        return loss([list(column) for column in zip(*flat, strict=True)], torch.cat(wanted))  # type: ignore[no-any-return]
    return loss([queries, documents], wanted)  # type: ignore[no-any-return]


@needs_peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("own", "name"),
    [(squared_error, "MSELoss"), (list_net, "ListNetLoss"), (lambda_loss, "LambdaLoss")],
)
@pytest.mark.parametrize(
    "wanted",
    [
        [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]],
        [[3.0, -1.0, 0.5, 2.0], [0.1, 0.2, 0.3, 0.4]],
    ],
)
def test_losses_of_rerankers_are_the_peers(own: Any, name: str, wanted: list[list[float]]) -> None:
    """One query at a time for LambdaLoss, which divides by the pairs of all queries."""
    targets = [torch.tensor(each) for each in wanted]
    scores = 3 * torch.randn(8, generator=torch.Generator().manual_seed(5))
    groups = [targets] if name != "LambdaLoss" else [[each] for each in targets]
    for number, group in enumerate(groups):
        given = scores[4 * number :][: 4 * len(group)]
        other = with_gradients(lambda x, group=group: peers_loss(name, x, group), given)
        mine = with_gradients(lambda x, group=group: own(x.split(4), group) / len(group), given)
        assert_same(mine, other)


def test_lambda_loss_of_one_document_and_of_equal_ones_is_nothing() -> None:
    scores = torch.tensor([0.3, 0.1], requires_grad=True)
    loss = lambda_loss([scores[:1], scores], [torch.ones(1), torch.ones(2)])
    loss.backward()
    assert loss.item() == 0 and scores.grad is not None and scores.grad.isfinite().all()


@needs_peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_left_out_documents_are_those_of_gist_with_the_model_as_its_guide(kind: str) -> None:
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    queries, documents, negatives = (draw(6, 8, seed=seed) for seed in range(3))
    documents = nn.functional.normalize(queries + 0.8 * documents, dim=-1)
    margin = 0.1
    theirs = GISTEmbedLoss.__new__(GISTEmbedLoss)
    nn.Module.__init__(theirs)
    peer = Peer()
    values = {
        "model": peer,
        "guide": peer,
        "temperature": 0.05,
        "similarity_fct": nn.CosineSimilarity(dim=-1),
        "must_retokenize": False,
        "margin_strategy": kind,
        "margin": margin,
        "contrast_anchors": False,
        "contrast_positives": False,
        "gather_across_devices": False,
        "cross_entropy_loss": nn.CrossEntropyLoss(),
    }
    for name, value in values.items():
        setattr(theirs, name, value)
    scores = max_sim(queries, ones(6), torch.cat([documents, negatives]), ones(12))
    limits = (margin, None) if kind == "absolute" else (None, 1 - margin)
    left_out = too_near(scores, torch.arange(6), *limits)
    assert left_out.any() and not left_out.all()
    own = in_batch(20 * scores, torch.arange(6), left_out) / 6
    expected = theirs(features(queries, documents, negatives), None)
    assert own.item() == pytest.approx(expected.item(), rel=1e-5)
