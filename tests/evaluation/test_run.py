"""A suite from a model to a table: results, starts, resumes and refusals."""

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from modernbert.data.judged_texts import read_judged_texts
from modernbert.errors import DocumentError, InputError, RunError
from modernbert.evaluation import run
from modernbert.evaluation.run import rank_judged, retrieval_scores
from modernbert.evaluation.suite import Suite
from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings
from modernbert.inference.similarity import max_sim
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.settings import parse
from modernbert.tokenizer.tokenizer import Tokenizer

TRAINING = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 8, "precision": "float32"}


def suite(**changes: Any) -> Suite:
    learnt = {"kind": "classify", "metric": "accuracy", "training": TRAINING}
    tasks = [
        {
            "name": "second",
            "train": "second/train",
            "dev": "second/dev",
            "start_from": "first",
            **learnt,
        },
        {"name": "first", "train": "first/train", "dev": "first/dev", **learnt, **changes},
        {"name": "judged", "kind": "retrieve", "metric": "mrr@10", "data": "judged"},
    ]
    return parse(Suite, {"name": "mine", "tasks": tasks}, where="test")


@pytest.fixture(scope="module")
def results(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("results")
    found = run.run_suite(suite(), str(model), output, data=data, precision="float32")
    return output, found


def test_a_table_of_all_tasks(results: Any) -> None:
    output, found = results
    assert json.loads((output / "results.json").read_text()) == found
    by_name = {task["name"]: task for task in found["tasks"]}
    assert list(by_name) == ["first", "second", "judged"]
    assert by_name["first"]["score"] > 0.8 and by_name["second"]["score"] > 0.8
    assert by_name["second"]["start"] == "first" and by_name["first"]["start"] == ""
    assert {"ndcg@10", "recall@100", "mrr@10"} <= by_name["judged"]["scores"].keys()
    scores = [task["score"] for task in found["tasks"]]
    assert found["average"] == pytest.approx(sum(scores) / 3)


def test_the_start_is_the_other_tasks_model(results: Any) -> None:
    output, _ = results
    recipe = (output / "second" / "recipe.toml").read_text()
    assert str(output / "first" / "model") in recipe


def test_what_is_done_is_not_done_again(
    results: Any, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, found = results
    for name in ("finetune", "load_retriever"):
        monkeypatch.setattr(run, name, None)
    assert run.run_suite(suite(), str(model), output, data=data, precision="float32") == found


def test_results_of_something_else_are_refused(results: Any, model: Path, data: Path) -> None:
    output, _ = results
    with pytest.raises(RunError, match="belongs to another model or task"):
        run.run_suite(suite(max_seqlen=16), str(model), output, data=data)


def test_a_start_from_outside(results: Any, model: Path, data: Path, tmp_path: Path) -> None:
    output, _ = results
    starts = {"first": str(output / "first" / "model")}
    only = suite().only(["second"])
    found = run.run_suite(only, str(model), tmp_path, data=data, starts=starts)
    assert found["tasks"][0]["start"] == "first"
    assert starts["first"] in (tmp_path / "second" / "recipe.toml").read_text()


def test_a_metric_that_there_is_not(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of accuracy"):
        run.run_suite(suite(metric="f9").only(["first"]), str(model), tmp_path, data=data)


def test_judgements_of_what_is_not_there(model: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "judged"
    broken.mkdir()
    for name in ("corpus.jsonl", "queries.jsonl"):
        (broken / name).write_text((data / "judged" / name).read_text())
    line = {"query-id": "qgood", "corpus-id": "nothing", "score": 1}
    (broken / "qrels.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DocumentError, match="judges no query and document that exist"):
        run.run_suite(suite().only(["judged"]), str(model), tmp_path / "o", data=tmp_path)


@pytest.fixture(params=["single", "multi"])
def retriever(request: pytest.FixtureRequest, model: Path) -> Any:
    if request.param == "single":
        return Embedder.from_pretrained(model, precision="float32")
    encoder, tokenizer = Encoder.from_pretrained(model), Tokenizer.from_pretrained(model)
    multi = MultiVectorModel(encoder, [projection(64, 16, seed=0)]).requires_grad_(False)
    return MultiVectorEmbedder(multi, tokenizer, MultiVectorSettings())


def test_both_kinds_of_retrievers_against_another_library(retriever: Any, data: Path) -> None:
    judged = read_judged_texts(data / "judged")
    scores = retrieval_scores(retriever, judged)
    texts, queries = list(judged.documents.values()), list(judged.queries.values())
    if isinstance(retriever, Embedder):
        options = {"normalize_embeddings": True}
        matrix = retriever.encode(queries, **options) @ retriever.encode(texts, **options).T
    else:
        matrix = max_sim(retriever.encode_query(queries), retriever.encode_document(texts))
    names = list(judged.documents)
    ranked = rank_judged(retriever, judged)
    for query, row in zip(judged.queries, matrix, strict=True):
        best = np.argsort(-row, kind="stable")
        assert list(ranked[query]) == [names[place] for place in best]
    found = {
        query: dict(zip(names, map(float, row), strict=True))
        for query, row in zip(judged.queries, matrix, strict=True)
    }
    measures = [ir_measures.nDCG @ 10, ir_measures.RR @ 10]
    expected = ir_measures.calc_aggregate(measures, judged.judgements, found)
    assert scores["ndcg@10"] == pytest.approx(expected[measures[0]], abs=1e-6)
    assert scores["mrr@10"] == pytest.approx(expected[measures[1]], abs=1e-6)


def test_a_query_is_not_its_own_answer(retriever: Any, data: Path) -> None:
    judged = read_judged_texts(data / "judged")
    same = type(judged)(
        name="same", queries={"good": "it is good"}, documents=judged.documents, judgements={}
    )
    assert "good" not in rank_judged(retriever, same)["good"]
    assert len(rank_judged(retriever, same, top_k=3)["good"]) == 3
