"""Training of retrievers and rerankers: what is learnt, what is delivered, what is refused."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.ranking.ranked import NAMES, document, held_out, query, recipe, write, write_model

from modernbert.errors import DocumentError, InputError, ModernBertError, RunError
from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.reranker import Reranker
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.settings import parse
from modernbert.tasks.finetune import finetune, open_job
from modernbert.tasks.tuning.job import TuningJob
from modernbert.tasks.tuning.task import Tuning
from modernbert.training.distributed import ALONE
from modernbert.training.interruption import Interrupted
from modernbert.training.task import Progress

KINDS = ["retrieve", "late-interaction", "sparse", "rerank"]
needs_peer = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("start"))


def load(kind: str, folder: Path) -> Any:
    cls: Any = {
        "retrieve": Embedder,
        "late-interaction": MultiVectorEmbedder,
        "sparse": SparseEmbedder,
        "rerank": Reranker,
    }[kind]
    return cls.from_pretrained(folder, precision="float32")


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_something_is_learnt_and_delivered(
    tmp_path: Path, start: Path, kind: str, scores: bool
) -> None:
    made = recipe(start, tmp_path, kind=kind, scores=scores, sweep={"seeds": [3]})
    job = open_job(kind, made)
    before = job.objective.evaluate(job.first(3), "dev", ALONE)["ndcg@10"]
    results = finetune(kind, made)
    assert results.best.dev["ndcg@10"] > (before + 0.1 if kind == "rerank" else 0.9)
    output = made.output
    assert {path.name for path in output.iterdir()} >= {"model", "results.json", "recipe.toml"}
    (folder,) = (output / "runs").iterdir()
    assert not (folder / "checkpoints").exists() and not (folder / "best").exists()
    score = f"{results.best.dev['ndcg@10']:.4f}"
    assert f"| ndcg@10 | dev | {score} |" in (output / "model" / "README.md").read_text()
    assert json.loads((output / "results.json").read_text()) == results.to_mapping()
    page = (output / "report.html").read_text()
    assert "Learning rate" in page and score in page
    load(kind, output / "model")
    weights = [path.read_bytes() for path in sorted(output.rglob("model/**/*.safe*"))]
    assert finetune(kind, made).to_mapping() == results.to_mapping()
    assert weights == [path.read_bytes() for path in sorted(output.rglob("model/**/*.safe*"))]


@needs_peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_sentence_transformers_gives_the_same(tmp_path: Path, start: Path, kind: str) -> None:
    import sentence_transformers as peer

    made = recipe(start, tmp_path, kind=kind, epochs=1, query_prompt="ask: ", skip_punctuation=True)
    finetune(kind, made)
    folder = str(made.output / "model")
    own = load(kind, made.output / "model")
    texts = [document(name, i) for i, name in enumerate(NAMES)] + ["", "where is alpha. " * 20]
    if kind == "rerank":
        pairs = [("where is alpha", text) for text in texts]
        expected = peer.CrossEncoder(folder, device="cpu").predict(pairs)
        np.testing.assert_allclose(own.scores(pairs), expected, atol=1e-5)
    elif kind == "sparse":
        sparse = peer.SparseEncoder(folder, device="cpu")
        for encode, theirs in (
            (own.encode_query, sparse.encode_query),
            (own.encode_document, sparse.encode_document),
        ):
            expected = theirs(texts, convert_to_sparse_tensor=False).numpy()
            np.testing.assert_allclose(own.to_dense(encode(texts)), expected, atol=1e-5)
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

    made = recipe(start, tmp_path, kind="rerank", scores=True, epochs=1)
    finetune("rerank", made)
    own = load("rerank", made.output / "model")
    assert own.activation == "Identity"
    pairs = [("where is alpha", document(name, 1)) for name in NAMES]
    expected = peer.CrossEncoder(str(made.output / "model"), device="cpu").predict(pairs)
    np.testing.assert_allclose(own.scores(pairs), expected, atol=1e-5)


def gradients(job: TuningJob) -> tuple[float, dict[str, torch.Tensor]]:
    module, task = job.first(0), Tuning(job, job.recipe.training)
    step = next(task.steps(Progress()))
    total = torch.zeros(())
    for micro_batch in step.micro_batches:
        loss = task.loss(module, micro_batch, step=1)
        loss.backward()
        total += loss.detach()
    named = module.named_parameters()
    return float(total), {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size_by_computing_twice(
    tmp_path: Path, start: Path, kind: str, scores: bool
) -> None:
    whole = gradients(open_job(kind, recipe(start, tmp_path, kind=kind, scores=scores)))
    small = recipe(start, tmp_path, kind=kind, scores=scores, micro_batch_tokens=40)
    cached = gradients(open_job(kind, small))
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
    job = open_job("retrieve", made)
    task = Tuning(job, job.recipe.training)
    step = next(task.steps(Progress()))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.loss(job.first(0), step.micro_batches[0], step=1)
    # One layer alone keeps more than five numbers for each of a token's 64.
    assert (sum(kept) < 5 * 64 * step.num_tokens) is (micro_batch_tokens == 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    tmp_path: Path, start: Path, kind: str
) -> None:
    import signal

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    unbroken = recipe(start, tmp_path / "whole", kind=kind, epochs=2)
    finetune(kind, unbroken)
    broken = recipe(start, tmp_path / "stopped", kind=kind, epochs=2)

    def stop(_run: str, record: Any) -> None:
        if record["kind"] == "step" and record["step"] in (3, 11):
            signal.raise_signal(signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Interrupted) as stopped:
            finetune(kind, broken, on_record=stop)
        assert stopped.value.exit_code == 143
    finetune(kind, broken)
    files = [p.relative_to(unbroken.output) for p in (unbroken.output / "model").rglob("*.safe*")]
    assert files
    for file in files:
        assert (unbroken.output / file).read_bytes() == (broken.output / file).read_bytes()


def test_each_matryoshka_dimension_has_a_loss(tmp_path: Path, start: Path) -> None:
    plain = gradients(open_job("retrieve", recipe(start, tmp_path)))
    twice = gradients(open_job("retrieve", recipe(start, tmp_path, matryoshka_dims=[64])))
    assert twice[0] == pytest.approx(2 * plain[0], rel=1e-5)
    other = gradients(open_job("retrieve", recipe(start, tmp_path, matryoshka_dims=[4])))
    assert plain[0] < other[0] != pytest.approx(twice[0], rel=1e-3)


def test_known_answers_are_no_negatives_of_each_other(tmp_path: Path, start: Path) -> None:
    made = recipe(start, tmp_path)
    answers = [{"query": "which", "positive": document(name, 1)} for name in NAMES]
    write(tmp_path / "train.jsonl", answers)
    assert gradients(open_job("retrieve", made))[0] == pytest.approx(0, abs=1e-6)
    write(tmp_path / "train.jsonl", [*answers, {"query": "other", "positive": "here"}])
    job = open_job("retrieve", recipe_of_size(made, 9))
    assert gradients(job)[0] > 0.1


def recipe_of_size(made: Any, batch_size: int) -> Any:
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
    results = finetune("retrieve", replace(made, data=settings))
    assert results.best.dev["ndcg@10"] > 0.6
    share = parse(type(made.data), {"train": str(folder), "dev": "25%"}, where="test")
    held = open_job("retrieve", replace(made, data=share)).objective.held_out["dev"]
    assert len(held.queries) == 2 and len(held.documents) == len(NAMES)  # all are searched


BAD = [
    ([{"query": "a", "positive": "b", "scores": [1.0, 2.0]}], "2 scores in scores for 1 documents"),
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
        open_job("retrieve", made)


@pytest.mark.parametrize(
    ("kind", "training", "message"),
    [
        ("retrieve", {"loss": "margin"}, "needs scores of a positive"),
        ("retrieve", {"loss": "binary"}, "got 'binary', expected one of 'in-batch'"),
        ("retrieve", {"matryoshka_dims": [99]}, "got 99, but a vector has 64"),
        ("late-interaction", {"matryoshka_dims": [4]}, "unknown key 'matryoshka_dims'"),
        ("rerank", {"loss": "in-batch"}, "expected one of 'binary'"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, start: Path, kind: str, training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModernBertError, match=message):
        open_job(kind, recipe(start, tmp_path, kind=kind, **training))


def test_a_metric_that_is_none_and_a_folder_of_another_run(tmp_path: Path, start: Path) -> None:
    with pytest.raises(InputError, match="expected one such as"):
        finetune("retrieve", recipe(start, tmp_path, metric="accuracy"))
    made = recipe(start, tmp_path, epochs=1)
    finetune("retrieve", made)  # what was refused has left nothing behind
    with pytest.raises(RunError, match="belongs to another recipe: sweep"):
        finetune("retrieve", recipe(start, tmp_path, epochs=1, sweep={"seeds": [9]}))
    write(tmp_path / "dev.jsonl", held_out()[1:])
    with pytest.raises(
        RunError, match="belongs to another recipe: the training, dev or test rows changed"
    ):
        finetune("retrieve", made)


def test_regularization_leaves_fewer_weights(tmp_path: Path, start: Path) -> None:
    """It grows over the first third of a run, and the loss is that of the step's mean weights."""
    dims = []
    for name, strength in (("free", 0.0), ("kept", 3e-3)):
        (tmp_path / name).mkdir()
        made = recipe(
            start,
            tmp_path / name,
            kind="sparse",
            epochs=3,
            query_regularization=strength,
            document_regularization=strength,
        )
        finetune("sparse", made)
        found = load("sparse", made.output / "model").encode([document(n, 1) for n in NAMES])
        dims.append(np.mean([len(each.weights) for each in found]))
    assert dims[1] < 0.8 * dims[0]


def test_the_penalty_counts_once_for_a_step_and_grows(tmp_path: Path, start: Path) -> None:
    strong = {"query_regularization": 0.5, "document_regularization": 0.25}
    jobs = [
        open_job("sparse", recipe(start, tmp_path, kind="sparse", **values))
        for values in ({"query_regularization": 0.0, "document_regularization": 0.0}, strong)
    ]
    module, rows = jobs[0].first(0), list(range(8))
    examples = [jobs[0].objective.data.examples[row] for row in rows]  # type: ignore[attr-defined]
    embedder = module.embedder
    queries = [each.query for each in examples]
    documents = list(dict.fromkeys(text for each in examples for text in each.documents))
    means = [embedder.to_dense(embedder.encode(texts)).mean(0) for texts in (queries, documents)]
    expected = 0.5 * np.square(means[0]).sum() + 0.25 * np.square(means[1]).sum()
    for done, factor in ((1 / 6, 0.25), (1 / 3, 1.0), (1.0, 1.0)):
        with torch.no_grad():
            plain, penalised = (float(j.objective.loss(module, rows, ALONE, done)) for j in jobs)
        assert penalised - plain == pytest.approx(8 * factor * expected, rel=1e-3)
