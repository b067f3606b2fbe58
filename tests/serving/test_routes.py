"""Each route against the same model used offline."""

import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.serving.conftest import MAX_SEQLEN, Serve, serving, text_of
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.chunks import ChunkSettings
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.inputs import TextEncoder
from modernbert.inference.question_answerer import QuestionAnswerer
from modernbert.inference.reranker import Reranker
from modernbert.inference.tagger import Tagger
from modernbert.model.encoder import Encoder
from modernbert.serving.models import ServedModel, load
from modernbert.serving.service import Service
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = [text_of(3), "", text_of(90, 1), "12", text_of(20, 2)]
TOO_LONG = text_of(400)


@pytest.fixture(scope="session")
def by_name(models: list[ServedModel]) -> dict[str, Any]:
    return {model.name: model for model in models}


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: httpx.Client, path: str, status: int, **body: Any) -> str:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


def close(got: Any, expected: Any) -> bool:
    return np.allclose(got, expected, atol=2e-6)


def test_embed(client: httpx.Client, by_name: dict[str, Any]) -> None:
    embedder = by_name["embedder"].part(Embedder)
    vectors = embedder.encode(TEXTS)
    assert close(post(client, "/embed", inputs=TEXTS, normalize=False), vectors)
    normal = embedder.encode(TEXTS, normalize_embeddings=True)
    assert close(post(client, "/embed", inputs=TEXTS), normal)
    assert close(post(client, "/embed", inputs=TEXTS[0]), normal[:1])
    cut = embedder.encode(TEXTS, normalize_embeddings=True, truncate_dim=7)
    assert close(post(client, "/embed", inputs=TEXTS, dimensions=7), cut)
    assert "dimensions" in refused(client, "/embed", 400, inputs="a", dimensions=65)


def test_prompts(client: httpx.Client, by_name: dict[str, Any]) -> None:
    expected = by_name["embedder"].part(Embedder).encode(TEXTS, prompt_name="query")
    got = post(client, "/embed", inputs=TEXTS, prompt_name="query", normalize=False)
    assert close(got, expected)
    assert "query" in refused(client, "/embed", 400, inputs="a", prompt_name="passage")


def test_token_ids_stand_for_their_text(client: httpx.Client, tokenizer: Tokenizer) -> None:
    expected = post(client, "/embed", inputs=TEXTS)
    bare = [tokenizer.encode(text, special_tokens=False) for text in TEXTS]
    framed = [tokenizer.encode(text) for text in TEXTS]
    assert close(post(client, "/embed", inputs=framed), expected)
    assert close(post(client, "/embed", inputs=[TEXTS[0], *framed[1:]]), expected)
    assert close(post(client, "/embed", inputs=bare[0]), expected[:1])
    assert close(post(client, "/embed", inputs=[bare[2], bare[3]]), expected[2:4])
    assert "448" in refused(client, "/embed", 422, inputs=[448])


def test_embed_all(client: httpx.Client, by_name: dict[str, Any]) -> None:
    model = by_name["embedder"]
    for text, got in zip(TEXTS, post(client, "/embed_all", inputs=TEXTS), strict=True):
        batch = PackedBatch.from_sequences([model.tokenizer.encode(text)])
        assert close(got, model.encoder(batch))


def test_similarity(client: httpx.Client, by_name: dict[str, Any]) -> None:
    embedder = by_name["embedder"].part(Embedder)
    vectors = embedder.encode(TEXTS)
    expected = embedder.similarity(vectors[:1], vectors[1:])[0]
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    assert close(post(client, "/similarity", inputs=inputs), expected)
    inputs["sentences"] = ["a"] * 2048
    assert len(post(client, "/similarity", inputs=inputs)) == 2048
    inputs["sentences"] = ["a"] * 2049
    assert "2049" in refused(client, "/similarity", 413, inputs=inputs)


def test_predict(client: httpx.Client, by_name: dict[str, Any]) -> None:
    classifier = by_name["classifier"].part(Classifier)
    pairs = [("the root", "12"), ("34", "sum of root")]
    expected = classifier.classify([*TEXTS, *pairs])
    inputs = [[text] for text in TEXTS] + [list(pair) for pair in pairs]
    got = post(client, "/predict", inputs=inputs)
    assert [[each["label"] for each in row] for row in got] == [
        [each.label for each in row] for row in expected
    ]
    assert close(*([[e[0] for e in rows] for rows in r] for r in _scores(got, expected)))
    _same(post(client, "/predict", inputs=TEXTS[0]), got[0])
    (logits,) = next(iter(classifier.logits([TEXTS[0]])))
    raw = {
        each["label"]: each["score"]
        for each in post(client, "/predict", inputs=TEXTS[0], raw_scores=True)
    }
    assert close([raw[label] for label in classifier.labels], logits)


def _scores(got: Any, expected: Any) -> Any:
    return (
        [[(each["score"],) for each in row] for row in got],
        [[(each.score,) for each in row] for row in expected],
    )


def test_rerank(client: httpx.Client, by_name: dict[str, Any]) -> None:
    expected = by_name["reranker"].part(Reranker).rank("the root of 12", TEXTS)
    got = post(client, "/rerank", query="the root of 12", texts=TEXTS, return_text=True)
    assert [each["index"] for each in got] == [each.index for each in expected]
    assert close([each["score"] for each in got], [each.score for each in expected])
    assert [each["text"] for each in got] == [TEXTS[each.index] for each in expected]
    raw = post(client, "/rerank", query="the root of 12", texts=TEXTS, raw_scores=True)
    sigmoid = torch.tensor([each["score"] for each in raw]).sigmoid()
    assert close(sigmoid, [each.score for each in expected])
    assert "text" not in raw[0]


@pytest.mark.parametrize("model", ["reranker", "vectors"])
def test_rerank_as_others_have_it(client: httpx.Client, model: str) -> None:
    texts = [text for text in TEXTS if text]
    query = "the root of 12"
    expected = post(client, "/rerank", query=query, texts=texts, model=model)
    first = post(client, "/v1/rerank", query=query, documents=texts, model=model)
    assert [each["index"] for each in first["results"]] == [each["index"] for each in expected]
    assert [each["document"]["text"] for each in first["results"]] == [
        texts[each["index"]] for each in expected
    ]
    documents = [{"text": text} for text in texts]
    asked = {"query": query, "documents": documents, "return_documents": False, "top_n": 2}
    short = post(client, f"/{model}/v1/rerank", **asked)["results"]
    second = post(client, "/v2/rerank", query=query, documents=texts, top_n=2, model=model)
    assert second["results"] == short and "document" not in short[0]
    assert close([e["relevance_score"] for e in short], [e["score"] for e in expected[:2]])
    assert second["model"] == model and second["id"] and second["usage"]["total_tokens"] > 20
    assert post(client, "/v2/rerank", query=query, documents=[TOO_LONG], model=model)["results"]
    for path in ("/v1/rerank", "/v2/rerank"):
        answer = client.post(path, json={"query": query, "documents": []})
        assert answer.status_code == 400 and "documents" in answer.json()["message"]
        answer = client.post(path, json={"query": query, "documents": ["a"], "rank_fields": []})
        assert answer.status_code == 400 and "rank_fields" in answer.json()["message"]


def test_unknown_fields_are_refused(client: httpx.Client) -> None:
    assert refused(client, "/embed", 400, inputs="a", normalise=True) == "normalise: no such field"
    inputs = {"source_sentence": "a", "sentences": ["b"], "x": 1}
    assert refused(client, "/similarity", 400, inputs=inputs) == "inputs.x: no such field"
    parameters = {"top_k": 1, "aggregation": "max"}
    said = refused(client, "/fill-mask", 400, inputs="[MASK]", parameters=parameters)
    assert said == "parameters.aggregation: no such field"


def test_one_model_is_described(client: httpx.Client) -> None:
    assert client.get("/v1/models/tagger").json()["id"] == "tagger"
    answer = client.get("/v1/models/nobody")
    assert answer.status_code == 404 and "nobody" in answer.json()["message"]


def test_tag(client: httpx.Client, by_name: dict[str, Any]) -> None:
    words = ["the", "square", "12"]
    expected = by_name["tagger"].part(Tagger).tag([*TEXTS, words])
    got = post(client, "/tag", inputs=[*TEXTS, words])
    for text, found, entities in zip([*TEXTS, words], got, expected, strict=True):
        places = [(each.label, each.start, each.end) for each in entities]
        assert [(e["entity_group"], e["start"], e["end"]) for e in found] == places
        assert close([e["score"] for e in found], [e.score for e in entities])
        for each in found:
            stretch = text[each["start"] : each["end"]]
            assert each["word"] == (stretch if isinstance(text, str) else " ".join(stretch))
    assert any(got)
    _same(post(client, "/tag", inputs=TEXTS[2]), got[2])
    assert post(client, "/tag", inputs=TOO_LONG)[-1]["end"] == len(TOO_LONG)


def test_answer(client: httpx.Client, by_name: dict[str, Any]) -> None:
    answerer = by_name["answerer"].part(QuestionAnswerer)
    pairs = [("what is 12", text) for text in (text_of(3), text_of(900), "12")]
    inputs = [{"question": question, "context": context} for question, context in pairs]
    for must_answer in (False, True):
        expected = answerer.answer(pairs, must_answer=must_answer)
        got = post(client, "/answer", inputs=inputs, must_answer=must_answer)
        assert [each["answer"] for each in got] == [each.text for each in expected]
        assert [each["start"] for each in got] == [each.start for each in expected]
        assert close([each["score"] for each in got], [each.score for each in expected])
    assert post(client, "/answerer", inputs=inputs[0], must_answer=True) == got[0]
    assert "empty" in refused(client, "/answer", 400, inputs=[])
    assert "context" in refused(client, "/answer", 400, inputs={"question": "a"})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("embedder", {"inputs": "a"}),
        ("classifier", {"inputs": "a"}),
        ("reranker", {"query": "a", "texts": ["a"]}),
        ("tagger", {"inputs": "a"}),
        ("masked", {"inputs": "[MASK]"}),
        ("answerer", {"inputs": {"question": "a", "context": "a"}}),
    ],
)
def test_numbers_that_are_not_finite_are_refused(
    folders: dict[str, Path], tmp_path: Path, name: str, body: dict[str, Any]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders[name], broken)
    weights = load_file(broken / "model.safetensors")
    for tensor_name, tensor in weights.items():
        if "final_norm" in tensor_name:
            tensor.fill_(torch.nan)
    save_file(weights, broken / "model.safetensors")
    model = load(broken, precision="float32")
    with serving(Service([model])) as address, httpx.Client(base_url=address) as client:
        assert "not finite" in refused(client, "/", 424, **body)


def test_two_models_of_one_name(folders: dict[str, Path]) -> None:
    model = load(folders["tagger"], precision="float32")
    with pytest.raises(InputError, match=r"^models: 2 are named 'tagger'; write NAME=MODEL"):
        Service([model, model])


def test_fill_mask(client: httpx.Client, by_name: dict[str, Any]) -> None:
    filler = by_name["masked"].part(FillMask)
    text, two = "the square of [MASK] is 12", "[MASK] and [MASK]"
    for top_k in (1, 5, 100):
        (expected,) = filler(text, top_k=top_k)
        got = post(client, "/fill-mask", inputs=text, parameters={"top_k": top_k})
        assert [each["token"] for each in got] == [each.token_id for each in expected]
        assert close([each["score"] for each in got], [each.score for each in expected])
    assert got[0]["sequence"] == text.replace(" [MASK]", got[0]["token_str"])
    answers = post(client, "/fill-mask", inputs=[text, two])
    assert [len(answers), len(answers[0]), len(answers[1])] == [2, 5, 2]
    assert [each["token"] for each in answers[1][1]] == [p.token_id for p in filler(two)[1]]
    assert "[MASK]" in refused(client, "/fill-mask", 400, inputs=["[MASK]", "none"])
    assert "top_k" in refused(client, "/fill-mask", 400, inputs="[MASK]", parameters={"top_k": 0})


def test_tokenize_and_decode(client: httpx.Client, tokenizer: Tokenizer) -> None:
    text = "the square of é 12 [MASK]"
    (tokens,) = post(client, "/tokenize", inputs=text)
    assert [token["id"] for token in tokens] == tokenizer.encode(text)
    for token in tokens:
        if token["special"]:
            assert token["text"] in ("[CLS]", "[SEP]", "[MASK]") and token["start"] is None
        else:
            assert token["text"] == text[token["start"] : token["stop"]]
    (bare,) = post(client, "/tokenize", inputs=[text], add_special_tokens=False)
    ids = [token["id"] for token in bare]
    assert ids == tokenizer.encode(text, special_tokens=False)
    (prompted,) = post(client, "/tokenize", inputs="12", prompt_name="query")
    assert [token["id"] for token in prompted] == tokenizer.encode("number: 12")
    assert post(client, "/decode", ids=ids, skip_special_tokens=False) == [tokenizer.decode(ids)]
    assert post(client, "/decode", ids=[ids[:2], ids[:1]]) == tokenizer.decode_batch(
        [ids[:2], ids[:1]]
    )
    assert "448" in refused(client, "/decode", 422, ids=[448])


def test_openai(client: httpx.Client, by_name: dict[str, Any], tokenizer: Tokenizer) -> None:
    expected = by_name["embedder"].part(Embedder).encode(TEXTS, normalize_embeddings=True)
    answer = post(client, "/v1/embeddings", input=TEXTS, model="embedder")
    assert close([each["embedding"] for each in answer["data"]], expected)
    assert [each["index"] for each in answer["data"]] == [0, 1, 2, 3, 4]
    num_tokens = sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    coded = post(client, "/v1/embeddings", input=TEXTS, encoding_format="base64", dimensions=9)
    rows = [np.frombuffer(base64.b64decode(e["embedding"]), "<f4") for e in coded["data"]]
    assert close(rows, functional.normalize(torch.from_numpy(expected)[:, :9]))
    error = client.post("/v1/embeddings", json={"input": []}).json()
    assert (error["code"], error["type"]) == (400, "Empty")
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == list(by_name)


def test_texts_that_are_too_long(client: httpx.Client, by_name: dict[str, Any]) -> None:
    embedder = by_name["embedder"].part(Embedder)
    assert "inputs[1]" in refused(client, "/embed", 413, inputs=["a", TOO_LONG])
    assert "inputs[0]" in refused(client, "/embed", 413, inputs=[[5] * (MAX_SEQLEN - 1)])
    ids = embedder.tokenizer.encode(TOO_LONG, special_tokens=False)
    for side, kept in (("right", ids[: MAX_SEQLEN - 2]), ("left", ids[2 - MAX_SEQLEN :])):
        got = post(client, "/embed", inputs=TOO_LONG, truncate=True, truncation_direction=side)
        assert close(got, post(client, "/embed", inputs=kept))
    with pytest.warns():
        expected = by_name["reranker"].part(Reranker).rank(TOO_LONG, ["12", TOO_LONG])
    got = post(client, "/rerank", query=TOO_LONG, texts=["12", TOO_LONG], truncate=True)
    assert close([each["score"] for each in got], [each.score for each in expected])
    for path, body in (
        ("/predict", {"inputs": ["12", TOO_LONG]}),
        ("/fill-mask", {"inputs": f"[MASK] {TOO_LONG}"}),
        ("/similarity", {"inputs": {"source_sentence": TOO_LONG, "sentences": ["a"]}}),
    ):
        assert "truncate" in refused(client, path, 413, **body)


def test_pairs_are_cut_on_the_left(tokenizer: Tokenizer) -> None:
    encoder = TextEncoder(tokenizer, 9, cut="left")
    (encoded,) = encoder([("12", text_of(30))])
    first, second = (tokenizer.encode(t, special_tokens=False) for t in ("12", text_of(30)))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    room = 6 - len(first)
    assert encoded.token_ids == [cls, *first, sep, *second[-room:], sep]


def test_auto_truncate(serve: Serve) -> None:
    client, _ = serve("embedder", auto_truncate=True)
    expected = post(client, "/embed", inputs=TOO_LONG, truncate=True)
    assert close(post(client, "/embed", inputs=TOO_LONG), expected)
    assert post(client, "/v1/embeddings", input=TOO_LONG)["usage"]["total_tokens"] == MAX_SEQLEN
    refused(client, "/embed", 413, inputs=TOO_LONG, truncate=False)


def test_the_model_of_a_request(client: httpx.Client) -> None:
    expected = post(client, "/predict", inputs="12")
    assert post(client, "/predict", inputs="12", model="classifier") == expected
    assert post(client, "/classifier/predict", inputs="12") == expected
    assert post(client, "/classifier", inputs="12") == expected
    assert post(client, "/reranker/predict", inputs="12") != expected
    assert "embedder" in refused(client, "/predict", 424, inputs="12", model="embedder")
    refused(client, "/embedder/predict", 424, inputs="12")
    refused(client, "/embed_sparse", 424, inputs="12")
    assert "nobody" in refused(client, "/predict", 404, inputs="12", model="nobody")
    refused(client, "/nobody/predict", 404, inputs="12")
    assert post(client, "/", inputs="12") == post(client, "/embed", inputs="12")
    kinds = {
        name: next(iter(client.get(f"/{name}/info").json()["model_type"]))
        for name in ("embedder", "classifier", "reranker", "tagger", "masked")
    }
    assert kinds == {
        "embedder": "embedding",
        "classifier": "classifier",
        "reranker": "reranker",
        "tagger": "tagger",
        "masked": "masked_lm",
    }
    described = client.get("/masked/info").json()["model_type"]
    assert described == {"masked_lm": {"mask_token": "[MASK]"}}


def test_one_model_alone_takes_requests_for_any(serve: Serve) -> None:
    client, _ = serve("embedder")
    assert post(client, "/embed", inputs="12", model="text-embedding-3-small")
    refused(client, "/rerank", 424, query="a", texts=["b"])


def test_a_model_is_compiled_before_the_first_request(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[list[int]] = []

    def compile_for_inference(self: Encoder) -> Encoder:
        self.register_forward_pre_hook(lambda _, given: shapes.append(given[0].lengths.tolist()))
        return self

    monkeypatch.setattr(Encoder, "compile_for_inference", compile_for_inference)
    for name in ("embedder", "tagger", "masked"):
        load(folders[name])
        assert shapes == []
        load(folders[name], compile=True)
        assert shapes.pop() == [2, 2]


def test_names_of_models(folders: dict[str, Path], models: list[ServedModel]) -> None:
    assert load(folders["tagger"], name="other").name == "other"
    with pytest.raises(InputError, match="NAME=MODEL"):
        load(folders["tagger"], name="a/b")
    for wrong, message in (([], "expected one or more"), ([models[0], models[0]], "2 are named")):
        with pytest.raises(InputError, match=message):
            Service(wrong)


def test_limits(serve: Serve) -> None:
    client, _ = serve("embedder", max_inputs=3, max_request_tokens=40)
    assert len(post(client, "/embed", inputs=["a"] * 3)) == 3
    assert "4" in refused(client, "/embed", 413, inputs=["a"] * 4)
    assert "tokens" in refused(client, "/embed", 413, inputs=[text_of(19)] * 3)
    refused(client, "/tokenize", 413, inputs=["a"] * 4)
    refused(client, "/decode", 413, ids=[[5]] * 4)


def test_times_are_told(client: httpx.Client) -> None:
    answer = client.post("/embed", json={"inputs": ["12", "sum"]})
    names = ("total", "compute", "tokenization", "queue", "inference")
    times = {name: int(answer.headers[f"x-{name}-time"]) for name in names}
    assert times["total"] >= times["inference"] >= 0
    assert answer.headers["x-compute-characters"] == "5"
    assert int(answer.headers["x-compute-tokens"]) >= 6
    lines = client.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith('te_request_count{route="/embed"}')]
    assert len(counted) == 1 and float(counted[0].split()[1]) >= 1
    for name in ("request_queue_duration", "request_tokenization_duration", "batch_next_tokens"):
        assert any(line.startswith(f"te_{name}_count") for line in lines)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_neighbours_and_order_change_nothing(client: httpx.Client, data: st.DataObject) -> None:
    """Requests of all kinds at once: each gets what it gets alone, in its order."""
    texts = [text_of(length, length) for length in (1, 2, 5, 30, 70, 110)]
    alone = {text: _alone(client, text) for text in texts}
    requests = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["/embed", "/predict", "/tag"]),
                st.lists(st.sampled_from(texts), min_size=1, max_size=6),
            ),
            min_size=2,
            max_size=8,
        )
    )
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda each: _ask(client, *each), requests))
    for (path, asked), answer in zip(requests, answers, strict=True):
        for text, got in zip(asked, answer, strict=True):
            _same(got, alone[text][path])


def _ask(client: httpx.Client, path: str, texts: list[str]) -> Any:
    return post(client, path, inputs=[[text] for text in texts] if path == "/predict" else texts)


_ALONE: dict[str, Any] = {}


def _alone(client: httpx.Client, text: str) -> Any:
    if text not in _ALONE:
        paths = ("/embed", "/predict", "/tag")
        _ALONE[text] = {path: _ask(client, path, [text])[0] for path in paths}
    return _ALONE[text]


def _same(got: Any, expected: Any) -> None:
    if got and isinstance(got[0], float):
        assert close(got, expected)
        return
    assert [{**each, "score": 0} for each in got] == [{**each, "score": 0} for each in expected]
    assert close([each["score"] for each in got], [each["score"] for each in expected])


def test_pieces_of_texts_have_vectors(client: httpx.Client, by_name: dict[str, Any]) -> None:
    embedder: Embedder = by_name["embedder"].part(Embedder)
    texts = [text_of(150), text_of(3)]
    answer = post(client, "/embed", inputs=texts, chunks={"num_tokens": 20})
    expected = embedder.encode_chunks(
        texts, chunks=ChunkSettings(num_tokens=20), normalize_embeddings=True
    )
    assert isinstance(expected, list)
    for got, (borders, vectors) in zip(answer, expected, strict=True):
        assert [(each["start"], each["end"]) for each in got] == borders
        assert close([each["embedding"] for each in got], vectors)
    borders = [[[0, 5]], [[0, 3], [2, 9]]]
    given = post(client, "/embed", inputs=texts, chunks={"borders": borders})
    assert [[[each["start"], each["end"]] for each in row] for row in given] == borders
    told = refused(client, "/embed", 422, inputs=texts[0], chunks={"borders": [[[3, 2]]]})
    assert "expected a start before an end" in told
    told = refused(client, "/embed", 400, inputs=texts, chunks={"borders": [[[0, 2]]]})
    assert "chunks.borders: got 1, expected 2" in told
    told = refused(client, "/embed", 400, inputs=texts, chunks={"size": 3})
    assert "size" in told
    refused(client, "/embed", 400, inputs=[[5, 6]], chunks={})


@pytest.mark.parametrize("thresholds", [[0.0, 1.0, 0.5], None])
def test_labels_are_chosen_by_their_thresholds(
    folders: dict[str, Path], tmp_path: Path, thresholds: list[float] | None
) -> None:
    shutil.copytree(folders["classifier"], tmp_path / "labels")
    path = tmp_path / "labels" / "config.json"
    config = json.loads(path.read_text())
    calibration = {"temperature": 2.0, **({"thresholds": thresholds} if thresholds else {})}
    problem = "multi_label_classification"
    path.write_text(json.dumps({**config, "problem_type": problem, "calibration": calibration}))
    plain = Classifier.from_pretrained(tmp_path / "labels", precision="float32")
    (logits,) = next(plain.logits(["12"]))
    with serving(Service([load(tmp_path / "labels", precision="float32")])) as address:
        (first, *others) = httpx.post(f"{address}/predict", json={"inputs": "12"}).json()
    got = {each["label"]: each for each in (first, *others)}
    least = dict(zip(("bad", "good", "fair"), thresholds or [0.5] * 3, strict=True))
    assert all(each["chosen"] is (each["score"] >= least[label]) for label, each in got.items())
    chances = dict(zip(("bad", "good", "fair"), (logits / 2).sigmoid().tolist(), strict=True))
    assert {label: each["score"] for label, each in got.items()} == pytest.approx(chances, abs=1e-5)
