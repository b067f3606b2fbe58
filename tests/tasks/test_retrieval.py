"""Training of retrievers and rerankers: what is learnt, what is delivered, what is refused."""

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Module

from modernbert.errors import DocumentError, InputError, ModernBertError, RunError
from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.reranker import Reranker
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.settings import parse
from modernbert.tasks.retrieval_examples import Kind
from modernbert.tasks.retrieval_recipe import RetrievalRecipe
from modernbert.tasks.retrieval_run import RankingJob, open_ranking_job, train_ranking
from modernbert.tokenizer.train import train
from modernbert.training.task import Progress

NAMES = ("alpha", "bravo", "carol", "delta", "eagle", "fable", "grape", "hotel")
ASKED = dict(
    zip(NAMES, ("red", "blue", "cyan", "pink", "gold", "grey", "jade", "lime"), strict=True)
)
KINDS: list[Kind] = ["retrieve", "late-interaction", "rerank"]
needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)


def document(name: str, number: int) -> str:
    return f"here is {name} with the number {number}"


def query(name: str) -> str:
    return f"where is {ASKED[name]}"


def rows(number: int, *, seed: int, scores: bool = False) -> list[dict[str, Any]]:
    """A query asks for a colour; the document that has the name of that colour answers."""
    choose = random.Random(seed)
    found = []
    for index in range(number):
        name, other, third = choose.sample(NAMES, 3)
        row: dict[str, Any] = {
            "query": query(name),
            "positive": document(name, index % 9),
            "negative_1": document(other, index % 9),
            "negative_2": document(third, index % 7),
        }
        found.append({**row, "scores": [5.0, 1.0, 0.0]} if scores else row)
    return found


def held_out() -> list[dict[str, Any]]:
    """Each name once, and every other as what does not answer."""
    return [
        {
            "query": query(name),
            "positive": document(name, 11),
            "negatives": [document(other, 11) for other in NAMES if other != name],
        }
        for name in NAMES
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tokenizer = train(
        [document(name, i) + " where" for i, name in enumerate(NAMES)], vocab_size=448
    )
    names = ("vocab_size", "mask_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
    config = EncoderConfig.preset(
        "tiny",
        **{name: getattr(tokenizer, name) for name in (*names, "unk_token_id")},
        hidden_size=64,
        num_heads=1,
        intermediate_size=64,
        max_seqlen=48,
        layer_kinds=layer_kinds(2),
    )
    initialize(MaskedLanguageModel(config), seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(start: Path, folder: Path, *, scores: bool = False, **training: Any) -> RetrievalRecipe:
    train_file = write(folder / "train.jsonl", rows(160, seed=0, scores=scores))
    dev_file = write(folder / "dev.jsonl", held_out())
    return parse(
        RetrievalRecipe,
        {
            "model": str(start),
            "output": str(folder / "run"),
            "data": {"train": str(train_file), "dev": str(dev_file)},
            "training": {
                "epochs": 6,
                "learning_rate": 3e-3,
                "batch_size": 8,
                "precision": "float32",
                "dim": 32,
                **training,
            },
        },
        where="test",
    )


def load(kind: Kind, folder: Path) -> Any:
    cls: Any = {"retrieve": Embedder, "late-interaction": MultiVectorEmbedder, "rerank": Reranker}[
        kind
    ]
    return cls.from_pretrained(folder, precision="float32")


def finished(kind: Kind, made: RetrievalRecipe) -> dict[str, Any]:
    result, results = train_ranking(open_ranking_job(kind, made))
    assert result.exit_code == 0
    return results


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_something_is_learnt_and_delivered(
    tmp_path: Path, start: Path, kind: Kind, scores: bool
) -> None:
    made = recipe(start, tmp_path, scores=scores, seed=3)
    job = open_ranking_job(kind, made)
    before = job.task.evaluate(job.module)["ndcg@10"]
    results = finished(kind, made)
    assert results["dev"]["ndcg@10"] > (before + 0.1 if kind == "rerank" else 0.9)
    output = made.output
    assert {path.name for path in output.iterdir()} >= {"model", "results.json", "recipe.toml"}
    assert not (output / "checkpoints").exists() and not (output / "best").exists()
    assert "ndcg@10" in (output / "model" / "README.md").read_text()
    assert json.loads((output / "results.json").read_text()) == results
    load(kind, output / "model")
    again, found = train_ranking(open_ranking_job(kind, made))
    assert again.status == "already_finished" and found == results


@needs_peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_sentence_transformers_gives_the_same(tmp_path: Path, start: Path, kind: Kind) -> None:
    import sentence_transformers as peer

    made = recipe(start, tmp_path, epochs=1, query_prompt="ask: ", skip_punctuation=True)
    finished(kind, made)
    folder = str(made.output / "model")
    own = load(kind, made.output / "model")
    texts = [document(name, i) for i, name in enumerate(NAMES)] + ["", "where is alpha. " * 20]
    if kind == "rerank":
        pairs = [("where is alpha", text) for text in texts]
        expected = peer.CrossEncoder(folder, device="cpu").predict(pairs)
        np.testing.assert_allclose(own.scores(pairs), expected, atol=1e-5)
    elif kind == "retrieve":
        other = peer.SentenceTransformer(folder, device="cpu")
        np.testing.assert_allclose(own.encode(texts), other.encode(texts), atol=1e-5)
        np.testing.assert_allclose(own.encode_query(texts), other.encode_query(texts), atol=1e-5)
    else:
        multi = peer.MultiVectorEncoder(folder, device="cpu")
        for a, b in zip(own.encode_query(texts), multi.encode_query(texts), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        for a, b in zip(own.encode_document(texts), multi.encode_document(texts), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@needs_peer
@pytest.mark.filterwarnings("ignore")
def test_a_margin_reranker_has_plain_scores_there_too(tmp_path: Path, start: Path) -> None:
    import sentence_transformers as peer

    made = recipe(start, tmp_path, scores=True, epochs=1)
    finished("rerank", made)
    own = load("rerank", made.output / "model")
    assert own.activation == "Identity"
    pairs = [("where is alpha", document(name, 1)) for name in NAMES]
    expected = peer.CrossEncoder(str(made.output / "model"), device="cpu").predict(pairs)
    np.testing.assert_allclose(own.scores(pairs), expected, atol=1e-5)


def gradients(job: RankingJob) -> tuple[float, dict[str, torch.Tensor]]:
    assert isinstance(job.module, Module)
    step = next(job.task.steps(Progress()))
    total = torch.zeros(())
    for micro_batch in step.micro_batches:
        loss = job.task.loss(job.module, micro_batch, step=1)
        loss.backward()
        total += loss.detach()
    named = job.module.named_parameters()
    return float(total), {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size_by_computing_twice(
    tmp_path: Path, start: Path, kind: Kind, scores: bool
) -> None:
    whole = gradients(open_ranking_job(kind, recipe(start, tmp_path, scores=scores)))
    small = recipe(start, tmp_path, scores=scores, micro_batch_tokens=40)
    cached = gradients(open_ranking_job(kind, small))
    assert cached[0] == pytest.approx(whole[0], rel=1e-5)
    assert cached[1].keys() == whole[1].keys() and len(whole[1]) > 10
    largest = max(float(gradient.abs().max()) for gradient in whole[1].values())
    for name, gradient in whole[1].items():
        tolerance = 1e-5 * largest
        torch.testing.assert_close(cached[1][name], gradient, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("micro_batch_tokens", [40, 10_000])
def test_activations_are_let_go_where_there_are_several_packs(
    tmp_path: Path, start: Path, micro_batch_tokens: int
) -> None:
    made = recipe(start, tmp_path, micro_batch_tokens=micro_batch_tokens)
    job = open_ranking_job("retrieve", made)
    step = next(job.task.steps(Progress()))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        job.task.loss(job.module, step.micro_batches[0], step=1)
    # One layer alone keeps more than five numbers for each of a token's 64.
    assert (sum(kept) < 5 * 64 * step.num_tokens) is (micro_batch_tokens == 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    tmp_path: Path, start: Path, kind: Kind
) -> None:
    import signal

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    unbroken = recipe(start, tmp_path / "whole", epochs=2)
    finished(kind, unbroken)
    broken = recipe(start, tmp_path / "stopped", epochs=2)

    def stop(record: Any) -> None:
        if record["kind"] == "step" and record["step"] in (3, 11):
            signal.raise_signal(signal.SIGTERM)

    for _ in range(2):
        result, _results = train_ranking(open_ranking_job(kind, broken), [stop])
        assert result.exit_code == 143
    finished(kind, broken)
    files = [p.relative_to(unbroken.output) for p in (unbroken.output / "model").rglob("*.safe*")]
    assert files
    for file in files:
        assert (unbroken.output / file).read_bytes() == (broken.output / file).read_bytes()


def test_each_matryoshka_dimension_has_a_loss(tmp_path: Path, start: Path) -> None:
    plain = gradients(open_ranking_job("retrieve", recipe(start, tmp_path)))
    twice = gradients(open_ranking_job("retrieve", recipe(start, tmp_path, matryoshka_dims=[64])))
    assert twice[0] == pytest.approx(2 * plain[0], rel=1e-5)
    other = gradients(open_ranking_job("retrieve", recipe(start, tmp_path, matryoshka_dims=[4])))
    assert plain[0] < other[0] != pytest.approx(twice[0], rel=1e-3)


def test_known_answers_are_no_negatives_of_each_other(tmp_path: Path, start: Path) -> None:
    made = recipe(start, tmp_path)
    answers = [{"query": "which", "positive": document(name, 1)} for name in NAMES]
    write(tmp_path / "train.jsonl", answers)
    assert gradients(open_ranking_job("retrieve", made))[0] == pytest.approx(0, abs=1e-6)
    write(tmp_path / "train.jsonl", [*answers, {"query": "other", "positive": "here"}])
    job = open_ranking_job("retrieve", recipe_of_size(made, 9))
    assert gradients(job)[0] > 0.1


def recipe_of_size(made: RetrievalRecipe, batch_size: int) -> RetrievalRecipe:
    return replace(made, training=replace(made.training, batch_size=batch_size))


def test_a_folder_of_judged_texts(tmp_path: Path, start: Path) -> None:
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    write(
        folder / "corpus.jsonl",
        [{"_id": name, "title": "", "text": document(name, 1)} for name in NAMES],
    )
    write(folder / "queries.jsonl", [{"_id": n, "text": query(n)} for n in NAMES])
    for split in ("train", "dev"):
        lines = [f"{name}\t{name}\t1" for name in NAMES]
        table = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
        (folder / "qrels" / f"{split}.tsv").write_text(table)
    made = recipe(start, tmp_path, batch_size=4, epochs=20)
    data = {"train": str(folder), "dev": str(folder)}
    settings = parse(type(made.data), data, where="test")
    results = finished("retrieve", RetrievalRecipe(**{**vars(made), "data": settings}))
    assert results["dev"]["ndcg@10"] > 0.6


BAD = [
    ([{"query": "a", "positive": "b", "scores": [1.0, 2.0]}], "2 scores for 1 documents"),
    ([{"query": "a", "positive": "b", "negative": "c", "scores": [1, "x"]}], "got 'x', expected a"),
    ([{"query": "a", "positive": "b", "negative": "c", "scores": [1, float("nan")]}], "got nan"),
    ([{"query": "a", "positive": ""}], "'positive': got nothing"),
    ([{"query": 3, "positive": "b"}], "column 'query': got 3"),
    ([{"question_text": "a", "positive": "b"}], "none of the columns query, anchor"),
    ([{"query": "a", "document": "b", "label": 0}], "no query has a document that answers it"),
]


@pytest.mark.parametrize(("lines", "message"), BAD)
def test_rows_that_cannot_be_used(
    tmp_path: Path, start: Path, lines: list[dict[str, Any]], message: str
) -> None:
    made = recipe(start, tmp_path)
    write(tmp_path / "train.jsonl", lines)
    with pytest.raises((DocumentError, InputError), match=message):
        open_ranking_job("retrieve", made)


@pytest.mark.parametrize(
    ("kind", "training", "message"),
    [
        ("retrieve", {"loss": "margin"}, "needs scores of a positive"),
        ("retrieve", {"loss": "binary"}, "got 'binary', expected in-batch"),
        ("retrieve", {"matryoshka_dims": [99]}, "got 99, but a vector has 64"),
        ("late-interaction", {"matryoshka_dims": [4]}, "for one vector a text"),
        ("rerank", {"loss": "in-batch"}, "expected binary"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, start: Path, kind: Kind, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModernBertError, match=message):
        open_ranking_job(kind, recipe(start, tmp_path, **training))


def test_a_metric_that_is_none_and_a_folder_of_another_run(tmp_path: Path, start: Path) -> None:
    with pytest.raises(InputError, match="expected one such as"):
        finished("retrieve", recipe(start, tmp_path, metric="accuracy"))
    with pytest.raises(RunError, match="belongs to another recipe"):
        finished("retrieve", recipe(start, tmp_path, seed=9))
