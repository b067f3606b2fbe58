"""finetune retrieve, late-interaction and rerank, mine and evaluate, on tiny models."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.small_models import write_masked_model

from modernbert.inference.retriever import load_retriever
from modernbert.tokenizer.tokenizer import Tokenizer

Run = Callable[..., Any]
WORDS = ("square", "root", "number")
QUICK = ("--batch-size", 4, "--precision", "float32", "--lr", "0.001")


@pytest.fixture(scope="session")
def start(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    return write_masked_model(folder, tokenizer, max_seqlen=48)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"query": f"{word} of {i}", "positive": f"The {word} of number {i} is {i * i}."}
        for i in range(6)
        for word in WORDS
    ]
    return lines(tmp_path / "pairs.jsonl", rows)


@pytest.mark.parametrize("kind", ["retrieve", "late-interaction", "rerank"])
def test_from_rows_to_a_model_that_ranks(
    run: Run, start: Path, pairs: Path, tmp_path: Path, kind: str
) -> None:
    mined = tmp_path / "mined.jsonl"
    found = run("mine", pairs, start, "-o", mined, "--negatives", 2, "--skip", 1)
    assert found.exit_code == 0, found.stderr
    assert found.stdout == f"{mined}: 18 rows with 36 negatives\n"
    output = tmp_path / "run"
    data = ("--train", mined, "--dev", pairs, "--model", start, "--output", output)
    answer = run("finetune", kind, *data, *QUICK)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout == f"{output / 'model'}\n"
    assert (
        "learned from: 18 queries, 18 positives, " in answer.stderr and "ndcg@10" in answer.stderr
    )
    again = run("finetune", kind, *data, *QUICK, "--json")
    assert again.json["model"] == str(output / "model") and again.json["verb"] == kind
    if kind == "rerank":
        ranked = run("rerank", output / "model", "square of 2", "The square.", "not", "--json")
        assert ranked.exit_code == 0 and len(ranked.stdout.splitlines()) == 2
    else:
        assert load_retriever(output / "model").dim == (64 if kind == "retrieve" else 128)
        scored = run("evaluate", output / "model", suite(tmp_path), "-o", tmp_path / "e", "--json")
        assert scored.exit_code == 0, scored.stderr
        assert 0 <= scored.json["average"] <= 1


def suite(folder: Path) -> Path:
    judged = folder / "judged"
    judged.mkdir()
    lines(judged / "corpus.jsonl", [{"_id": word, "text": f"The {word}."} for word in WORDS])
    lines(judged / "queries.jsonl", [{"_id": f"q{word}", "text": word} for word in WORDS])
    rows = [{"query-id": f"q{word}", "corpus-id": word, "score": 1} for word in WORDS]
    lines(judged / "qrels.jsonl", rows)
    task = '[[tasks]]\nname = "judged"\nkind = "retrieve"\ndata = "judged"\nmetric = "mrr@10"\n'
    (folder / "mine.toml").write_text(f'name = "mine"\n{task}')
    return folder / "mine.toml"


def test_a_table_for_a_person(run: Run, start: Path, tmp_path: Path) -> None:
    answer = run("evaluate", start, suite(tmp_path), "-o", tmp_path / "out")
    assert answer.exit_code == 0, answer.stderr
    row, average = answer.stdout.splitlines()
    assert row.split()[:2] == ["judged", "mrr@10"] and average.startswith("average")
    assert row.split()[2] == average.split()[1]


def test_an_index_that_changes_and_is_searched_by_words(
    run: Run, start: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bm25s", reason="needs the extra search")
    index = tmp_path / "texts.index"
    rows = [{"_id": f"d{i}", "text": f"The square of {i}.", "title": f"T{i}"} for i in range(5)]
    first = lines(tmp_path / "first.jsonl", rows)
    made = run("embed", first, start, "-o", index, "--bm25", "english", "--field", "title")
    assert made.exit_code == 0, made.stderr
    more = [{"_id": "d1", "text": "A new moon.", "title": "M"}, {**rows[0], "_id": "d9"}]
    second = lines(tmp_path / "second.jsonl", more)
    added = run("embed", second, start, "-o", index, "--add", "--field", "title")
    assert added.exit_code == 0, added.stderr
    found = run("search", index, start, "moons", "--by", "bm25", "--show", "id,title,text")
    assert found.stdout == "moons\n    d1  M  A new moon.\n"
    both = run("search", index, start, "moon", "--top-k", 2, "--json").json
    assert both["hits"][0]["id"] == "d1" and both["hits"][0]["fields"] == {"title": "M"}
    gone = run("index", "delete", index, "d1", "d7")
    assert gone.stdout == f"{index}: 1 document deleted, 5 documents now\n"
    assert run("index", "compact", index, "--json").json["documents"] == 5
    assert run("search", index, start, "moon", "--by", "bm25").stdout == "moon\n"
    assert run("verify", index).exit_code == 0
    assert run("info", index, "--json").json["documents"] == 5


def test_the_size_of_an_index_is_that_of_the_formats_of_embed(run: Run) -> None:
    size = ("index", "size", "--documents", 1000, "--dim", 8, "--json")
    assert run(*size).json["float32"] == 4 * 8 * 1000
    several = (*size, "--vectors", 2)
    assert run(*several).json["vectors"] == 2 * 8 * 2000  # float16
    assert run(*several, "--kind", "int8").json["vectors"] < 2 * 8 * 2000
    assert run(*size, "--kind", "float16").exit_code == 2


def test_what_an_index_has_no_use_for(run: Run, start: Path, tmp_path: Path) -> None:
    rows = lines(tmp_path / "rows.jsonl", [{"text": "The square."}])
    index, latin = tmp_path / "texts.index", tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9\n")
    assert run("embed", rows, start, "-o", index).exit_code == 0
    rows_with_ids = lines(tmp_path / "more.jsonl", [{"_id": "a", "text": "A.", "title": "T"}])
    add = ("embed", rows_with_ids, start, "-o", index, "--add")
    kept, bare = tmp_path / "kept.index", tmp_path / "bare.index"
    field = ("--field", "title")
    assert run("embed", rows_with_ids, start, "-o", kept, *field).exit_code == 0
    assert run("embed", rows_with_ids, start, "-o", bare, "--no-texts").exit_code == 0
    for arguments, message in (
        (("embed", rows, start, "-o", index, "--add"), "has no column of ids"),
        ((*add, *field), f"--field: got title, expected none, which {index} keeps"),
        (
            ("embed", rows_with_ids, start, "-o", kept, "--add"),
            f"--field: got none, expected title, which {kept} keeps",
        ),
        ((*add, "--no-texts"), f"--add: {index} keeps texts; leave out --no-texts"),
        (
            ("embed", rows_with_ids, start, "-o", bare, "--add"),
            f"--add: {bare} keeps no texts; give --no-texts",
        ),
        (("embed", rows, start, "-o", tmp_path / "a.npy", "--add"), "have no effect without"),
        (("embed", rows, start, "-o", tmp_path / "b.index", "--field", "no"), "no column 'no'"),
        (("search", index, start, "x", "--by", "bm25"), "was built without BM25"),
        (("search", index, start, "x", "--show", "id,no"), "keeps no field 'no'"),
        (("index", "delete", index), "got no ids"),
        (("index", "delete", start, "x"), "expected a search index"),
        (("index", "delete", index, "--input", latin), "latin.txt: is no text in UTF-8"),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 2 and message in answer.stderr, answer.stderr


def test_negatives_by_words_and_the_floor(
    run: Run, start: Path, pairs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bm25s", reason="needs the extra search")
    mined = tmp_path / "mined.jsonl"
    found = run("mine", pairs, start, "-o", mined, "--negatives", 1, "--by", "bm25")
    assert found.exit_code == 0, found.stderr
    row = json.loads(mined.read_text().splitlines()[0])
    assert row["negatives"][0].startswith("The square of number")
    limited = run("mine", pairs, start, "-o", tmp_path / "m", "--by", "bm25", "--margin", 0.1)
    assert limited.exit_code == 2 and "limit_by" in limited.stderr
    scored = run("evaluate", start, suite(tmp_path), "-o", tmp_path / "out")
    assert "BM25 1.0000" in scored.stdout


def test_a_recipe_with_options_over_it(
    run: Run, start: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "{start}"\n[data]\ntrain = "{pairs}"\n'
        "[training]\nepochs = 9\nbatch_size = 6\nquery_prompt = 'ask: '\n"
    )
    answer = run("finetune", "retrieve", recipe, "--epochs", 1, "--matryoshka", 8, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["best"]["steps"] == 3 and answer.json["best"]["dev"] == {}
    written = (tmp_path / "runs" / "retrieve-pairs" / "recipe.toml").read_text()
    assert "epochs = 1" in written and "matryoshka_dims = [" in written
    loaded = load_retriever(tmp_path / "runs" / "retrieve-pairs" / "model")
    assert loaded.settings.prompts["query"] == "ask: "


def test_a_sweep_and_a_table_of_it(run: Run, start: Path, pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    data = ("--train", pairs, "--dev", pairs, "--model", start, "--output", output)
    sweep = ("--seeds", 2, "--lr", "1e-7", "--lr", "1e-3", "--epochs", 1, "--processes", 1)
    parts = ("--layer-decay", 0.5, "--freeze-embeddings", "--freeze-layers", 1)
    steps = ("--batch-tokens", 120, "--micro-batch-tokens", 60, "--precision", "float32")
    answer = run("finetune", "rerank", *data, *sweep, *parts, *steps)
    assert answer.exit_code == 0, answer.stderr
    assert "learning rate  weight decay  epochs  ndcg@10" in answer.stderr
    assert answer.stderr.count(" ± ") == 2
    found = run("finetune", "rerank", *data, *sweep, *parts, *steps, "--json").json
    assert [each["seeds"] for each in found["combinations"]] == [[0, 1], [0, 1]]
    assert [each["learning_rate"] for each in found["combinations"]] == [1e-7, 1e-3]
    with (output / "recipe.toml").open("rb") as file:
        written = tomllib.load(file)
    assert written["sweep"]["learning_rates"] == [1e-7, 1e-3]
    given = {"layer_decay": 0.5, "freeze_embeddings": True, "freeze_layers": 1}
    given |= {"batch_tokens": 120, "micro_batch_tokens": 60, "epochs": 1}
    assert written["training"].items() >= given.items()
    assert "Learning rate" in (output / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("finetune", "retrieve", "--model", "m"), "--train: is missing; name the rows"),
        (("finetune", "rerank", "--train", "rows"), "--model: is missing; name a model"),
        (("finetune", "retrieve", "--train", "none.jsonl", "--model", "{start}"), "none.jsonl"),
        (
            ("finetune", "retrieve", "--train", "{pairs}", "--model", "{start}", "--loss", "kl"),
            "needs scores",
        ),
        (
            ("finetune", "retrieve", "--train", "{pairs}", "-m", "{start}", "--batch-tokens", "0"),
            "--batch-tokens: got 0, expected 1",
        ),
        (
            ("finetune", "rerank", "--train", "{pairs}", "-m", "{start}", "--freeze-layers", "9"),
            "freeze_layers: got 9, expected at most 2",
        ),
        (("mine", "{pairs}", "{start}", "-o", "{pairs}"), "already exists"),
        (("mine", "{pairs}", "{start}", "-o", "out.jsonl", "--depth", "0"), "depth: got 0"),
        (("mine", "{pairs}", "{start}", "-o", "out.jsonl", "--margin", "9"), "found no negatives"),
        (("evaluate", "{start}", "glu"), "expected a .toml file, one of"),
        (("evaluate", "{start}", "glue", "--task", "x"), "task 'x': not in the suite"),
        (("evaluate", "{start}", "glue", "--start", "mnli"), "expected TASK=MODEL"),
        (("evaluate", "{start}", "nfcorpus", "--data", "nowhere"), "no corpus.jsonl"),
        (("evaluate", "{start}", "glue", "--task", "cola"), "no such file, with or without"),
    ],
)
def test_one_line_that_says_what_to_do(
    run: Run,
    start: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run(*(each.format(start=start, pairs=pairs) for each in arguments))
    assert answer.exit_code == 2 and message in answer.stderr, answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert line == answer.stderr.splitlines()[-1]


@pytest.mark.parametrize("stopped_in", ["query", "document", "rows"])
def test_a_stopped_mine_goes_on_where_it_was(
    run: Run,
    start: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_in: str,
) -> None:
    from modernbert.cli.mine import MiningJob
    from modernbert.inference import retriever

    def mined(name: str) -> tuple[Any, Path]:
        return run("mine", pairs, start, "-o", tmp_path / name, "--negatives", 2), tmp_path / name

    assert mined("whole.jsonl")[0].exit_code == 0
    compute, add_row, embedded = retriever.text_vectors, MiningJob.add_row, list[tuple[str, int]]()

    def vectors(model: Any, texts: Any, side: str, **options: Any) -> Any:
        embedded.append((side, len(texts)))
        for block in compute(model, texts, side, **options):
            for place in range(len(block)):
                yield block[place : place + 1]
                if side == stopped_in and place == 2:
                    raise KeyboardInterrupt

    def add(job: MiningJob, row: Any) -> None:
        add_row(job, row)
        if stopped_in == "rows" and job.num_done == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retriever, "text_vectors", vectors)
        patch.setattr(MiningJob, "add_row", add)
        stopped, output = mined("stopped.jsonl")
    assert stopped.exit_code == 130 and not output.exists()
    kept = {"query": "3 texts embedded", "rows": "5 examples with"}
    assert f"stopped after {kept.get(stopped_in, '')}" in stopped.stderr
    embedded.clear()
    with monkeypatch.context() as patch:
        stopped_in = "nowhere"
        patch.setattr(retriever, "text_vectors", vectors)
        again, output = mined("stopped.jsonl")
    assert again.exit_code == 0, again.stderr
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sum(count == 0 or count < 18 for _, count in embedded) >= 1
    assert not list(tmp_path.glob("*.unfinished"))
