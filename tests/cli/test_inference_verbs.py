"""embed, search, classify, tag and rerank, on tiny models."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tests.small_models import config_for

from modernbert.batch import PackedBatch
from modernbert.hashes import find_faults, read_hashes
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.inference.index import Index
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings
from modernbert.inference.question_answerer import QuestionAnswerer
from modernbert.inference.similarity import max_sim
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = [f"The {word} of number {i} is {i * i}." for i in range(3) for word in ("square", "root")]
FLOAT32 = ("--precision", "float32")


@pytest.fixture(scope="session")
def models(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of every kind."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    config = config_for(tokenizer)
    labels = ("O", "B-NUM", "I-NUM")
    kinds: dict[str, Any] = {
        "embedder": Encoder(config),
        "masked": MaskedLanguageModel(config),
        "classifier": SequenceClassifier(config, ClassifierSettings(labels=("bad", "good"))),
        "tagger": TokenClassifier(config, ClassifierSettings(labels=labels)),
        "answerer": SpanClassifier(config, ClassifierSettings(labels=("start", "end"))),
        "reranker": SequenceClassifier(
            config, ClassifierSettings(labels=("relevance",), problem="regression")
        ),
    }
    for name, model in kinds.items():
        shake(initialize(model, seed=0))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    multi = MultiVectorModel(kinds["embedder"], [projection(64, 16, seed=0)]).requires_grad_(False)
    marked = MultiVectorSettings(prompts={"query": "[unused0]", "document": "[unused1]"})
    MultiVectorEmbedder(multi, tokenizer, marked).save_pretrained(folder / "multi")
    SparseEmbedder(kinds["masked"], tokenizer).save_pretrained(folder / "sparse")
    settings = EmbedderSettings(prompts={"query": "root ", "document": "square "})
    Embedder(kinds["embedder"], tokenizer, settings).save_pretrained(folder / "embedder")
    return folder


def shake(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


@pytest.fixture(scope="session")
def embedder(models: Path) -> Embedder:
    return Embedder.from_pretrained(models / "embedder", precision="float32")


@pytest.fixture
def texts_file(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps({"id": f"doc {i}", "text": text}) for i, text in enumerate(TEXTS)]
    file.write_text("\n".join([*lines, "", "{broken", '{"text": 3}']) + "\n")
    return file


def embed(run: Callable[..., Any], models: Path, source: Path, output: Path, *more: object) -> Any:
    return run("embed", source, models / "embedder", "-o", output, *FLOAT32, *more)


def ids_in(path: Path) -> list[str]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_without_texts_is_told(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    answer = run("classify", models / "classifier", "-i", tmp_path / "empty.txt", *FLOAT32)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == f"{tmp_path / 'empty.txt'}: has no text\n"


def test_embed_to_npy(
    run: Callable[..., Any], models: Path, texts_file: Path, embedder: Embedder, tmp_path: Path
) -> None:
    answer = embed(run, models, texts_file, tmp_path / "out.npy")
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout == f"{tmp_path / 'out.npy'}: 6 vectors of 64 numbers\n"
    assert "2 skipped (1 broken JSON, 1 text is not a string)" in answer.stderr
    vectors = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(vectors, embedder.encode(TEXTS), atol=1e-5)
    assert ids_in(tmp_path / "out.ids.jsonl") == [f"doc {i}" for i in range(6)]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"texts.jsonl", "out.npy", "out.ids.jsonl", "out.npy.hashes.json"}
    assert not list(find_faults(tmp_path, read_hashes(tmp_path / "out.npy.hashes.json")))
    again = embed(run, models, texts_file, tmp_path / "out.npy")
    assert again.exit_code == 2 and "already exists" in again.stderr


def test_embed_to_parquet_with_options(
    run: Callable[..., Any], models: Path, embedder: Embedder, tmp_path: Path
) -> None:
    from pyarrow import parquet

    with gzip.open(tmp_path / "texts.txt.gz", "wt") as file:
        file.write("\n\n".join(TEXTS))
    options = ("--normalize", "--truncate-dim", 8, "--prompt-name", "query", "--json")
    answer = embed(run, models, tmp_path / "texts.txt.gz", tmp_path / "out.parquet", *options)
    assert answer.json == {
        "output": str(tmp_path / "out.parquet"), "ids": None, "vectors": 6, "dim": 8,
    }  # fmt: skip
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ["1", "3", "5", "7", "9", "11"]
    expected = embedder.encode_query(TEXTS, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(table.column("vector").to_pylist(), expected, atol=1e-5)


class Stop(BaseException):
    pass


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from modernbert.inference import batching

    def of_two(items: Any, *_: object) -> Iterator[list[Any]]:
        waiting: list[Any] = []
        for item in items:
            waiting.append(item)
            if len(waiting) == 2:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    monkeypatch.setattr(batching, "windows", of_two)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("stop_at", [0, 1, 2])
@pytest.mark.parametrize("step", ["append", "sync", "_write_state"])
def test_embed_goes_on_where_it_was_stopped(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    embedder: Embedder,
    tmp_path: Path,
    stop_at: int,
    step: str,
) -> None:
    from modernbert.cli import job as job_module
    from modernbert.cli.embedding_job import EmbeddingJob
    from modernbert.inference.index_files import VectorFile

    where: Any = VectorFile if step in ("append", "sync") else EmbeddingJob
    original, calls = getattr(where, step), 0

    def stops(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > stop_at + (step == "_write_state"):
            raise KeyboardInterrupt
        return original(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "_SECONDS_BETWEEN_SAVES", 0.0)
        patch.setattr(where, step, stops)
        answer = embed(run, models, texts_file, tmp_path / "out.npy")
    assert answer.exit_code == 130
    assert f"stopped after {2 * stop_at} texts" in answer.stderr or step == "_write_state"
    assert not (tmp_path / "out.npy").exists()
    other = embed(run, models, texts_file, tmp_path / "out.npy", "--normalize")
    assert other.exit_code == 2 and "another normalize embeddings" in other.stderr
    answer = embed(run, models, texts_file, tmp_path / "out.npy")
    assert answer.exit_code == 0
    assert (f"going on after {2 * stop_at} texts" in answer.stderr) == (stop_at > 0)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), embedder.encode(TEXTS), atol=1e-5)
    assert ids_in(tmp_path / "out.ids.jsonl") == [f"doc {i}" for i in range(6)]


@pytest.mark.parametrize("kind", ["float32", "int8", "binary"])
def test_search(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    embedder: Embedder,
    tmp_path: Path,
    kind: str,
) -> None:
    index = tmp_path / "texts.index"
    assert embed(run, models, texts_file, index, "--kind", kind).exit_code == 0
    queries = ["number 2", "The root"]
    common = ("search", index, models / "embedder", *queries, *FLOAT32, "--top-k", 2)
    lines = [json.loads(line) for line in run(*common, "--json").stdout.splitlines()]
    scores = embedder.similarity(embedder.encode_query(queries), embedder.encode_document(TEXTS))
    for query, line, expected in zip(queries, lines, scores, strict=True):
        best = expected.topk(2)
        assert line["query"] == query
        assert [hit["row"] for hit in line["hits"]] == best.indices.tolist()
        assert [hit["id"] for hit in line["hits"]] == [f"doc {i}" for i in best.indices.tolist()]
        assert [hit["score"] for hit in line["hits"]] == pytest.approx(best.values.tolist())
        assert [hit["text"] for hit in line["hits"]] == [TEXTS[i] for i in best.indices.tolist()]
    shown = run(*common).stdout.splitlines()
    assert (
        len(shown) == 6
        and shown[0] == "number 2"
        and shown[1].endswith(f"doc {(first := int(shown[1].split()[2]))}  {TEXTS[first]}")
    )


def test_search_with_another_model(
    run: Callable[..., Any], models: Path, texts_file: Path, tmp_path: Path
) -> None:
    embed(run, models, texts_file, tmp_path / "texts.index")
    answer = run("search", tmp_path / "texts.index", models / "masked", "x")
    assert answer.exit_code == 2 and "did not make the vectors" in answer.stderr


def test_classify(run: Callable[..., Any], models: Path, texts_file: Path) -> None:
    command = ("classify", models / "classifier", *FLOAT32)
    lines = run(*command, "-i", texts_file, "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["text"] for each in found] == TEXTS
    model = SequenceClassifier.from_pretrained(models / "classifier")
    tokenizer = Tokenizer.from_pretrained(models / "classifier")
    for text, each in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            scores = model(PackedBatch.from_sequences([tokenizer.encode(text)])).softmax(1)[0]
        by_label = {label["label"]: label["score"] for label in each["labels"]}
        assert by_label == pytest.approx(
            {"bad": scores[0].item(), "good": scores[1].item()}, abs=1e-5
        )
    shown = run(*command, TEXTS[0], "--top-k", 1).stdout.splitlines()
    assert shown[0] == TEXTS[0] and shown[1].split()[0] in ("bad", "good")
    strict = run(*command, "-i", texts_file, "--strict")
    assert strict.exit_code == 2 and "line 8: broken JSON" in strict.stderr


def test_tag_lines_of_stdin(
    run: Callable[..., Any], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*TEXTS, ""])))
    lines = run("tag", models / "tagger", "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == TEXTS
    for line in map(json.loads, lines):
        for entity in line["entities"]:
            assert entity["text"] == line["text"][entity["start"] : entity["end"]]
            assert entity["label"] == "NUM"
    assert any(json.loads(line)["entities"] for line in lines)
    assert run("tag", models / "tagger", TEXTS[0]).stdout.startswith(TEXTS[0] + "\n")


def test_rerank(run: Callable[..., Any], models: Path) -> None:
    command = ("rerank", models / "reranker", "number 2", *TEXTS, *FLOAT32)
    found = [json.loads(line) for line in run(*command, "--json").stdout.splitlines()]
    assert sorted(each["text"] for each in found) == sorted(TEXTS)
    assert all(TEXTS[int(each["id"]) - 1] == each["text"] for each in found)
    scores = [each["score"] for each in found]
    assert scores == sorted(scores, reverse=True)
    shown = run(*command, "--top-k", 2).stdout.splitlines()
    assert [line.split("  ", 1)[1] for line in shown] == [each["text"] for each in found[:2]]


def test_long_texts_are_told(run: Callable[..., Any], models: Path) -> None:
    answer = run("classify", models / "classifier", "number " * 99)
    assert answer.exit_code == 0
    assert answer.stderr == (
        "warning: 1 of 1 texts are longer than 64 tokens and were cut there; "
        "split them to have all of them read\n"
    )


def test_fill_mask_in_a_precision(run: Callable[..., Any], models: Path) -> None:
    for precision in ("float32", "bfloat16"):
        answer = run("fill-mask", models / "masked", "The [MASK].", "--precision", precision)
        assert answer.exit_code == 0 and answer.stdout.startswith("The [MASK].\n")
    assert run("fill-mask", models / "masked", "x", "--precision", "fp4").exit_code == 2


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("nowhere.jsonl", "out.npy", "no such file"),
        ("folder", "out.npy", "has no file to read"),
        ("texts.jsonl", "out.csv", "expected a name that ends in .npy, .parquet, .index"),
        ("empty.txt", "out.npy", "the input has no text; nothing was written"),
    ],
)
def test_what_cannot_be_embedded(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    tmp_path: Path,
    source: str,
    output: str,
    message: str,
) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "folder").mkdir()
    answer = embed(run, models, tmp_path / source, tmp_path / output)
    assert answer.exit_code == 2 and message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {texts_file.name, "empty.txt", "folder"}


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("stop_at", [None, 1])
@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_embed_and_search_one_vector_a_token(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    stop_at: int | None,
) -> None:
    from modernbert.cli.embedding_job import EmbeddingJob

    index, multi = tmp_path / "docs.index", models / "multi"
    command = ("embed", texts_file, multi, "-o", index, *FLOAT32, "--kind", kind)
    if stop_at is not None:
        real, calls = EmbeddingJob.append, 0

        def stopping(self: EmbeddingJob, *arguments: Any) -> None:
            nonlocal calls
            calls += 1
            real(self, *arguments)
            if calls > stop_at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(EmbeddingJob, "append", stopping)
            stopped = run(*command)
        assert stopped.exit_code == 130 and "stopped after 4 texts" in stopped.stderr
    answer = run(*command)
    assert answer.exit_code == 0, answer.stderr
    embedder = MultiVectorEmbedder.from_pretrained(multi, precision="float32")
    stored = embedder.encode_document(TEXTS)
    assert f"{sum(map(len, stored))} vectors of 16 numbers" in answer.stdout
    found = run("search", index, multi, TEXTS[3], "--top-k", 2, "--json", *FLOAT32)
    assert found.exit_code == 0, found.stderr
    scores = max_sim(embedder.encode_query(TEXTS[3]), stored)[0]
    (line,) = found.stdout.splitlines()
    hits = json.loads(line)["hits"]
    assert [hit["row"] for hit in hits] == np.argsort(-scores)[:2].tolist()
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(scores)[:-3:-1], abs=0.1)
    assert hits[0]["id"] == f"doc {hits[0]['row']}"
    wrong = run("search", index, models / "embedder", "x")
    assert wrong.exit_code == 2 and "did not make the vectors" in wrong.stderr


def test_candidates_and_fewer_vectors_on_request(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    multi, texts, index = models / "multi", tmp_path / "many.txt", tmp_path / "docs.index"
    lines = [f"{TEXTS[number % 6]} And {number}." for number in range(40)]
    texts.write_text("\n".join(lines), "utf-8")
    command = ("embed", texts, multi, "-o", index, *FLOAT32, "--clusters", 4)
    answer = run(*command, "--pool-factor", 2)
    assert answer.exit_code == 0, answer.stderr
    embedder = MultiVectorEmbedder.from_pretrained(multi, precision="float32")
    stored = embedder.encode_document(lines, pool_factor=2)
    assert f"{sum(map(len, stored))} vectors" in answer.stdout
    assert sum(map(len, stored)) < 0.6 * sum(map(len, embedder.encode_document(lines)))
    assert np.load(index / "encodings.npy").shape == (4, 40)
    found = run("search", index, multi, lines[3], "--top-k", 2, "--oversample", 10, *FLOAT32)
    assert found.exit_code == 0 and lines[3] in found.stdout
    more = tmp_path / "more.csv"
    more.write_text(f"id,text\n41,{lines[0]}\n", "utf-8")
    command = ("embed", more, multi, "-o", index, *FLOAT32, "--add")
    refused = run(*command, "--pool-factor", 3)
    assert refused.exit_code == 2 and "was built with 2" in refused.stderr
    assert run(*command).exit_code == 0
    num_vectors = Index.open(index).manifest.num_vectors
    assert num_vectors == sum(map(len, [*stored, stored[0]]))


@pytest.mark.filterwarnings("ignore")
def test_a_faiss_index_on_request(
    run: Callable[..., Any], models: Path, texts_file: Path, tmp_path: Path
) -> None:
    faiss = pytest.importorskip("faiss")
    index = tmp_path / "docs.index"
    assert embed(run, models, texts_file, index, "--faiss").exit_code == 0
    assert faiss.read_index(str(index / "index.faiss")).ntotal == len(TEXTS)
    refused = embed(run, models, texts_file, tmp_path / "out.npy", "--faiss")
    assert refused.exit_code == 2 and "--faiss: needs an .index" in refused.stderr


@pytest.mark.parametrize(
    ("model", "output", "more", "message"),
    [
        ("multi", "out.npy", (), "several vectors per text; choose an .index"),
        ("multi", "out.index", ("--normalize",), "has its own prompts; leave out --normalize"),
        ("multi", "out.index", ("--kind", "binary"), "--kind: got 'binary', expected one of float"),
        ("embedder", "out.index", ("--kind", "float16"), "--kind: got 'float16', expected one of"),
        ("embedder", "out.index", ("--clusters", "9"), "need a model of one vector per token"),
        ("embedder", "out.index", ("--pool-factor", "2"), "need a model of one vector per token"),
        ("multi", "out.index", ("--clusters", "99999"), "expected a number from 0 to 65,536"),
    ],
)
def test_what_a_kind_of_model_cannot_do(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    tmp_path: Path,
    model: str,
    output: str,
    more: tuple[str, ...],
    message: str,
) -> None:
    answer = run("embed", texts_file, models / model, "-o", tmp_path / output, *more)
    assert answer.exit_code == 2 and message in answer.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl"}


READ_ALIKE: dict[str, bytes] = {
    "a.csv": b"id,text,label\nx,The square of 2 is 4.,a\ny,The root,b\n",
    "a.tsv": b"id\ttext\nx\tThe square of 2 is 4.\ny\tThe root\n",
    "a.json": json.dumps(
        [{"id": "x", "sentence": "The square of 2 is 4."}, {"id": "y", "sentence": "The root"}]
    ).encode(),
}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_tables_are_read_as_finetune_reads_them(
    run: Callable[..., Any], models: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(READ_ALIKE[name])
    done = run("classify", models / "classifier", "--input", tmp_path / name, "--json", *FLOAT32)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["id"], row["text"]) for row in found] == [
        ("x", "The square of 2 is 4."),
        ("y", "The root"),
    ]
    output = tmp_path / "out.npy"
    run("embed", tmp_path / name, models / "embedder", "-o", output, *FLOAT32)
    ids = (tmp_path / "out.ids.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in ids] == ["x", "y"]


def test_pairs_are_classified_as_pairs(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2\nThe root,The square\n")
    done = run("classify", models / "classifier", "--input", tmp_path / "a.csv", "--json", *FLOAT32)
    assert json.loads(done.stdout)["text"] == ["The root", "The square"]


def test_words_of_conll_files_are_tagged(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("The O\nsquare B-NUM\n\nof O\n2 B-NUM\n")
    done = run("tag", models / "tagger", "--input", tmp_path / "a.txt", "--json", *FLOAT32)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in found] == ["The square", "of 2"]
    for row in found:
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]


def test_a_column_that_is_not_there_stops_at_once(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,y\n")
    arguments = ("--input", tmp_path / "a.csv", "--text-field", "txt")
    done = run("classify", models / "classifier", *arguments, *FLOAT32)
    assert done.exit_code != 0
    assert "no column 'txt'; did you mean 'text'?" in done.stderr


def test_questions_of_a_file_are_answered_in_the_text_beside_each(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    paragraph = {
        "context": TEXTS[0],
        "qas": [{"id": "q1", "question": "Which number?"}, {"id": "q2", "question": "Which root?"}],
    }
    squad = tmp_path / "squad.json"
    squad.write_text(json.dumps({"data": [{"title": "", "paragraphs": [paragraph]}]}))
    table = tmp_path / "rows.csv"
    table.write_text(f"ask,passage\nWhich number?,{TEXTS[0]}\nWhich root?,{TEXTS[0]}\n")
    columns = ("--text-field", "ask", "--text-pair", "passage")
    answerer = QuestionAnswerer.from_pretrained(models / "answerer", precision="float32")
    pairs = [("Which number?", TEXTS[0]), ("Which root?", TEXTS[0])]
    expected = [each.text for each in answerer.stream(pairs, must_answer=True)]
    for source, options, ids in ((squad, (), ["q1", "q2"]), (table, columns, ["1", "2"])):
        told = run(
            *("answer", models / "answerer", "--input", source, *options),
            *("--must-answer", "--json", *FLOAT32),
        )
        assert told.exit_code == 0, told.stderr
        found = [json.loads(line) for line in told.stdout.splitlines()]
        assert [each["id"] for each in found] == ids
        assert [each["question"] for each in found] == ["Which number?", "Which root?"]
        assert [each["answer"]["text"] for each in found] == expected


def test_questions_come_from_one_place(
    run: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXTS[0])
    both = run("answer", models / "answerer", "--context", file, "--input", file)
    neither = run("answer", models / "answerer", "Which number?")
    assert both.exit_code == neither.exit_code == 2
    assert "give either --context or --input" in both.stderr
    assert "give either --context or --input" in neither.stderr
    answer = run("answer", models / "answerer", "Which number?", "--input", file)
    assert answer.exit_code == 2 and "has its own questions" in answer.stderr


def test_sparse_vectors_are_written_as_json_lines(
    run: Callable[..., Any], models: Path, texts_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sparse.jsonl"
    answer = run("embed", texts_file, models / "sparse", "-o", output, *FLOAT32)
    assert answer.exit_code == 0, answer.stderr
    assert "2 skipped" in answer.stderr
    embedder = SparseEmbedder.from_pretrained(models / "sparse", precision="float32")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["id"] for each in lines] == [f"doc {i}" for i in range(len(TEXTS))]
    for line, vector in zip(lines, embedder.encode_document(TEXTS), strict=True):
        assert line["token_ids"] == vector.token_ids.tolist()
        assert line["weights"] == pytest.approx(vector.weights.tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("x.npy", (), "gives sparse vectors; name a .jsonl file"),
        ("x.jsonl", ("--normalize",), "gives sparse vectors; leave out"),
    ],
)
def test_sparse_vectors_are_no_rows_of_an_array(
    run: Callable[..., Any],
    models: Path,
    texts_file: Path,
    tmp_path: Path,
    output: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    answer = run("embed", texts_file, models / "sparse", "-o", tmp_path / output, *options)
    assert answer.exit_code == 2 and message in answer.stderr
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("by", ["tokens", "sentences"])
def test_pieces_of_long_texts_are_found(
    run: Callable[..., Any],
    models: Path,
    embedder: Embedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: Literal["tokens", "sentences"],
) -> None:
    from modernbert.cli import job as job_module
    from modernbert.cli.embedding_job import EmbeddingJob
    from modernbert.inference.chunks import ChunkSettings

    long = [" ".join(f"The square of {i} is {i * i}." for i in range(at, at + 6)) for at in (0, 9)]
    rows = [
        {"id": name, "text": text} for name, text in zip("abc", (long[0], "", long[1]), strict=True)
    ]
    source = tmp_path / "long.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--chunks", by, "--chunk-tokens", 12, "--batch-tokens", 40)
    kept = EmbeddingJob.append

    def append(job: EmbeddingJob, *given: Any) -> None:
        kept(job, *given)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingJob, "append", append)
        patch.setattr(job_module, "_SECONDS_BETWEEN_SAVES", 0.0)
        stopped = embed(run, models, source, tmp_path / "out.index", *options)
    assert stopped.exit_code == 2 and "run the same command to continue" in stopped.stderr
    answer = embed(run, models, source, tmp_path / "out.index", *options)
    assert answer.exit_code == 0 and "going on after" in answer.stderr, answer.stderr
    chunks = ChunkSettings(by=by, num_tokens=12)
    prompt = embedder.settings.side_prompt("document")
    found = embedder.encode_chunks(long, chunks=chunks, prompt=prompt)
    assert isinstance(found, list)
    expected = {
        f"{name}#char={start},{end}": (text[start:end], vector)
        for name, text, each in zip("ac", long, found, strict=True)
        for (start, end), vector in zip(each.borders, each.vectors, strict=True)
    }
    index = Index.open(tmp_path / "out.index")
    assert len(index) == len(expected) > 4
    for name, (text, vector) in expected.items():
        (hits,) = index.search(vector, top_k=len(index))
        assert hits[0].score == pytest.approx(1, abs=1e-3)
        assert {hit.id: hit.text for hit in hits} == {key: x for key, (x, _) in expected.items()}
        assert (name, text) in {(hit.id, hit.text) for hit in hits if hit.score > 0.999}
    refused = embed(run, models, source, tmp_path / "x.index", "--chunk-tokens", 3)
    assert refused.exit_code == 2 and "no effect without --chunks" in refused.stderr


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_pieces_with_given_borders(
    run: Callable[..., Any], models: Path, embedder: Embedder, tmp_path: Path, kind: str
) -> None:
    text, spans = "Berlin is large. It lies on the Spree.", [(0, 16), (17, 38)]
    source, index = tmp_path / f"texts.{kind}", tmp_path / "out.index"
    source.write_text(
        json.dumps({"id": "a", "text": text, "pieces": spans}) + "\n"
        if kind == "jsonl"
        else f'id,text,pieces\na,{text},"{spans}"\n'.replace("(", "[").replace(")", "]")
    )
    command = ("--borders", "pieces", "--field", "id")
    answer = embed(run, models, source, index, *command)
    assert answer.exit_code == 0, answer.stderr
    prompt = embedder.settings.side_prompt("document")
    expected = embedder.encode_chunks(text, borders=spans, prompt=prompt)
    (hits,) = Index.open(index).search(expected.vectors[1], 2)
    assert [hit.text for hit in hits] == ["It lies on the Spree.", "Berlin is large."]
    assert [hit.id for hit in hits] == ["a#char=17,38", "a#char=0,16"]
    assert hits[0].fields == {"id": "a"} and hits[0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("pieces", [None, "x", [[0]], [[0, 1.5]], [[3, 2]], [[0, 99]], [1], {}])
def test_borders_that_are_none(
    run: Callable[..., Any], models: Path, tmp_path: Path, pieces: Any
) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text(json.dumps({"id": "row 7", "text": "A text.", "pieces": pieces}) + "\n")
    answer = embed(run, models, source, tmp_path / "out.index", "--borders", "pieces")
    assert answer.exit_code == 2 and "row 7: borders" in answer.stderr, answer.stderr
