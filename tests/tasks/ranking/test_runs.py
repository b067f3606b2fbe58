"""Rankings in several runs: frozen parts, rates by depth, seeds, sweeps, and the page of them."""

import json
import os
import shutil
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tests.tasks.ranking.ranked import held_out, recipe, rows, write, write_model

from modernbert.errors import InputError, RunError, SettingsError
from modernbert.inference.multi_vector_folder import read_folder
from modernbert.model.encoder import Encoder
from modernbert.model.heads import SequenceClassifier
from modernbert.tasks.finetune import finetune, open_job
from modernbert.tasks.tuning.job import Results
from modernbert.tasks.tuning.task import Tuning
from modernbert.training.distributed import ALONE
from modernbert.training.interruption import Interrupted
from modernbert.training.task import Progress

KINDS = ["retrieve", "late-interaction", "sparse", "rerank"]
SWEEP: dict[str, Any] = {"seeds": [0, 1], "learning_rates": [1e-7, 3e-3]}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def swept(start: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    made = recipe(start, tmp_path_factory.mktemp("swept"), epochs=2, sweep=SWEEP)
    return made.output, finetune("retrieve", made)


def moved(kind: str, start: Path, folder: Path) -> dict[str, float]:
    """How far each tensor of the encoder has come from where it began."""
    if kind == "rerank":
        model = SequenceClassifier.from_pretrained(folder).encoder
    else:
        own = read_folder(folder).encoder if kind == "late-interaction" else folder
        model = Encoder.from_pretrained(own)
    before = Encoder.from_pretrained(start).state_dict()
    return {
        name: float((tensor - before[name]).abs().max())
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_stays_as_it_is(tmp_path: Path, start: Path, kind: str) -> None:
    frozen = {"freeze_embeddings": True, "freeze_layers": 1}
    # In packs, so that activations are let go and computed again where parts are frozen.
    made = recipe(start, tmp_path, kind=kind, epochs=1, micro_batch_tokens=60, **frozen)
    finetune(kind, made)
    for name, distance in moved(kind, start, made.output / "model").items():
        is_frozen = name.startswith(("embeddings.", "layers.0."))
        assert (distance == 0) is is_frozen, name


@pytest.mark.parametrize("kind", KINDS)
def test_lower_layers_have_lower_rates(tmp_path: Path, start: Path, kind: str) -> None:
    made = recipe(start, tmp_path, kind=kind, epochs=1, layer_decay=0.01)
    finetune(kind, made)
    distances = moved(kind, start, made.output / "model")
    names = ("embeddings.tok_embeddings", "layers.0.mlp.Wo", "layers.1.mlp.Wo")
    lowest, middle, highest = (distances[f"{name}.weight"] for name in names)
    assert 0 < 10 * lowest < middle and 10 * middle < highest


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_of_another_vocabulary_is_refused(
    tmp_path: Path, start: Path, kind: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(start, model)
    library = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    library.add_tokens([f"new{number}" for number in range(600)])
    library.save(str(model / "tokenizer.json"))
    with pytest.raises(InputError, match="vocab_size is"):
        open_job(kind, recipe(model, tmp_path, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_queries_is_held_out(tmp_path: Path, start: Path, kind: str) -> None:
    made = recipe(start, tmp_path, kind=kind, epochs=1)
    job = open_job(kind, replace(made, data=replace(made.data, dev="25%")))
    num_queries = len({row["query"] for row in rows(160, seed=0)})
    held = job.objective.held_out["dev"]
    queries = held.queries.values() if kind != "rerank" else [each.query for each in held]
    learnt = {each.query for each in job.objective.data.examples}
    assert len(set(queries)) == num_queries // 4 and learnt.isdisjoint(queries)
    assert job.splits["dev"].startswith("25% of ") and "test" not in job.splits
    module = job.first(0)
    assert 0 <= job.objective.evaluate(module, "dev", ALONE)["ndcg@10"] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_so_many_tokens(tmp_path: Path, start: Path, kind: str) -> None:
    """A query stays with its documents, and an epoch has all of them."""
    job = open_job(kind, recipe(start, tmp_path, kind=kind, batch_tokens=150))
    task = Tuning(job, job.recipe.training)
    num_rows = len(job.objective.lengths)
    steps = task.steps(Progress())
    longest = max(task.epochs.lengths)
    seen = []
    while sum(step.num_targets for step in seen) < num_rows:
        seen.append(next(steps))
    assert sum(step.num_targets for step in seen) == num_rows
    assert all(step.num_tokens <= 150 for step in seen)
    assert all(step.num_tokens + longest > 150 for step in seen[:-1])


@pytest.mark.parametrize(
    ("kind", "batch_size", "is_same"),
    [("retrieve", 8, False), ("retrieve", 160, True), ("rerank", 160, False)],
)
def test_seeds_have_another_order_and_other_new_weights(
    tmp_path: Path, start: Path, kind: str, batch_size: int, is_same: bool
) -> None:
    """A step of all rows has no order, and a retriever has no new weights."""
    losses = []

    def hear(_run: str, record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == 1:
            losses.append(record["loss"])

    sweep = {"seeds": [0, 1]}
    made = recipe(
        start, tmp_path, kind=kind, epochs=1, batch_size=batch_size, scores=True, sweep=sweep
    )
    finetune(kind, made, on_record=hear)
    assert (losses[0] == pytest.approx(losses[1], rel=1e-4)) is is_same


def test_seeds_and_rates_make_a_table(swept: tuple[Path, Results]) -> None:
    output, results = swept
    assert [(each.learning_rate, len(each.outcomes)) for each in results.combinations] == [
        (1e-7, 2),
        (3e-3, 2),
    ]
    for each in results.combinations:
        first, second = (outcome.dev["ndcg@10"] for outcome in each.outcomes)
        assert each.mean("dev")["ndcg@10"] == pytest.approx((first + second) / 2)
        assert each.spread("dev")["ndcg@10"] == pytest.approx(abs(first - second) / 2**0.5)
    assert results.best.learning_rate == 3e-3
    assert results.best.dev == max((o.dev for o in results.outcomes), key=lambda d: d["ndcg@10"])
    card = (output / "model" / "README.md").read_text()
    assert "mean over seeds" in card and f"| seed | {results.best.seed} |" in card


def test_the_model_of_the_best_run_is_delivered(
    swept: tuple[Path, Results], start: Path, tmp_path: Path
) -> None:
    output, results = swept
    job = open_job("retrieve", recipe(start, tmp_path))
    found = job.objective.evaluate(job.load(output / "model").eval(), "dev", ALONE)
    assert found == pytest.approx(results.best.dev, abs=1e-6)
    assert len(list((output / "runs").iterdir())) == 4
    assert not list((output / "runs").glob("*/best"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_to_test_on_are_scored_with_the_weights_that_are_kept(
    kind: str, start: Path, tmp_path: Path
) -> None:
    made = recipe(start, tmp_path, kind=kind, epochs=1, learning_rate=1e-5)
    few = write(tmp_path / "test.jsonl", held_out()[:5])
    tested = replace(made, data=replace(made.data, test=str(few)))
    best = finetune(kind, tested).best
    job = open_job(kind, replace(made, data=replace(made.data, dev=str(few))))
    module = job.load(made.output / "model").eval()
    assert best.test == pytest.approx(job.objective.evaluate(module, "dev", ALONE), abs=1e-6)
    assert best.test != best.dev
    assert "| ndcg@10 | test |" in (made.output / "model" / "README.md").read_text()


def test_without_dev_rows_the_page_shows_those_to_test_on(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path, epochs=1, learning_rate=1e-7)
    data = replace(made.data, dev=None, test=made.data.dev)
    best = finetune("retrieve", replace(made, data=data)).best
    assert not best.dev and best.test["ndcg@10"] < 1
    page = (made.output / "report.html").read_text()
    assert "Where it is most wrong" in page and "ndcg@10 (test)" in page


def test_other_rows_to_test_on_are_another_run(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path, epochs=1)
    finetune("retrieve", made)
    few = write(tmp_path / "test.jsonl", held_out()[:5])
    with pytest.raises(RunError):
        finetune("retrieve", replace(made, data=replace(made.data, test=str(few))))


def test_the_page_has_the_runs_and_the_worst_queries(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path, epochs=1, learning_rate=1e-7, sweep={"seeds": [0, 1]})
    finetune("retrieve", made)
    page = (made.output / "report.html").read_text()
    for part in ("Runs", "±", "Loss", "ndcg@10", "recipe.toml", "Where it is most wrong"):
        assert part in page
    assert "BM25 reaches ndcg@10 " in page
    job = open_job("retrieve", made)
    best = job.load(made.output / "model").eval()
    rankings = job.objective.rankings(best, "dev", ALONE)  # type: ignore[attr-defined]
    for each in rankings.wrong("ndcg@10")[:25]:
        assert each.query in page and each.instead in page and f"{each.score:.3f}" in page


def test_a_sweep_that_was_stopped_ends_with_the_same_bytes(
    swept: tuple[Path, Results], start: Path, tmp_path: Path
) -> None:
    made = recipe(start, tmp_path, epochs=2, sweep=SWEEP)

    def stop(run: str, record: dict[str, Any]) -> None:
        if run.endswith("seed-1") and record["kind"] == "step" and record["step"] == 25:
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):  # once in each combination
        with pytest.raises(Interrupted):
            finetune("retrieve", made, on_record=stop)
    output, unbroken = swept
    results = finetune("retrieve", made)
    assert [each.dev for each in results.outcomes] == [each.dev for each in unbroken.outcomes]
    (file,) = (path.relative_to(output) for path in output.rglob("model/*.safetensors"))
    assert (output / file).read_bytes() == (made.output / file).read_bytes()


@pytest.mark.slow
def test_runs_in_processes_give_what_one_process_gives(
    swept: tuple[Path, Results], start: Path, tmp_path: Path
) -> None:
    heard = []
    made = recipe(start, tmp_path, epochs=2, sweep={**SWEEP, "processes": 2})
    results = finetune(
        "retrieve", made, on_record=lambda run, record: heard.append((run, record["kind"]))
    )
    for found, expected in zip(results.outcomes, swept[1].outcomes, strict=True):
        assert (found.name, found.dev) == (expected.name, pytest.approx(expected.dev, abs=1e-4))
    assert len({run for run, kind in heard if kind == "end"}) == 4


@pytest.mark.parametrize(
    ("kind", "cut"),
    [
        ("retrieve", ["1 of 2 queries", "1 of 5 documents"]),
        ("late-interaction", ["1 of 2 queries", "1 of 5 documents"]),
        ("sparse", ["1 of 2 queries", "1 of 5 documents"]),
        ("rerank", ["2 of 5 pairs"]),
    ],
)
def test_texts_that_are_cut_are_counted(
    start: Path, tmp_path: Path, kind: str, cut: list[str]
) -> None:
    made = recipe(start, tmp_path, kind=kind)
    assert not any("are cut there" in note for note in open_job(kind, made).notes)
    long = {"query": "where " * 60, "positive": "here " * 60, "negative": "here is alpha"}
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    write(tmp_path / "train.jsonl", [*map(json.loads, lines[:1]), long])
    notes = [note for note in open_job(kind, made).notes if "are cut there" in note]
    assert [note.split(": ")[1].partition(" are longer than 48 tokens")[0] for note in notes] == cut


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_frozen_layers_are_refused_before_anything_is_written(
    start: Path, tmp_path: Path, kind: str
) -> None:
    made = recipe(start, tmp_path, kind=kind, freeze_layers=3)
    with pytest.raises(SettingsError, match="freeze_layers: got 3, expected at most 2"):
        finetune(kind, made)
    assert not made.output.exists()


def test_a_model_of_no_run_is_left_alone(start: Path, tmp_path: Path) -> None:
    made = recipe(start, tmp_path)
    (made.output / "model").mkdir(parents=True)
    with pytest.raises(RunError, match="exists and does not belong to a run"):
        finetune("retrieve", made)


@pytest.mark.parametrize(
    ("kind", "training"),
    [
        ("rerank", {"loss": "mse"}),
        ("rerank", {"loss": "lambda"}),
        ("retrieve", {"loss": "listnet"}),
        ("late-interaction", {"loss": "in-batch", "negative_ratio": 0.9}),
    ],
)
def test_several_data_sets_are_learnt_by_their_weights(
    tmp_path: Path, start: Path, kind: str, training: dict[str, Any]
) -> None:
    made = recipe(start, tmp_path, kind=kind, scores=True, **training)
    more = write(tmp_path / "more.jsonl", rows(6, seed=3, scores=True))
    made = replace(made, data=replace(made.data, more=(f"{more}=0.5",)))
    job = open_job(kind, made)
    assert job.mixture is not None and len(job.mixture.sources) == 166
    task = Tuning(job, job.recipe.training)
    steps = [rows for rows, _ in islice(task.epochs.steps(), task.epochs.num_steps(1))]
    sources = [{job.mixture.sources[row] for row in rows} for rows in steps]
    assert sorted(map(len, steps)) == [3, *[8] * 20] and sources.count({1}) == 1
    module = job.first(0)
    loss = job.objective.loss(module, steps[0], ALONE, 0.0)
    loss.backward()
    assert loss.isfinite() and any(each.grad is not None for each in module.parameters())


def test_grades_are_learnt_by_listwise_losses_alone(tmp_path: Path, start: Path) -> None:
    pairs = [
        {"query": "where is red", "document": f"here is {name}", "label": label}
        for name, label in (("alpha", 3), ("bravo", 1), ("carol", 0))
    ]
    train = write(tmp_path / "graded.jsonl", pairs)
    for loss, wanted in (("lambda", (3.0, 1.0, 0.0)), ("binary", (3.0, 1.0, 0.0))):
        made = recipe(start, tmp_path, kind="rerank", loss=loss)
        job = open_job("rerank", replace(made, data=replace(made.data, train=str(train))))
        (example,) = job.objective.data.examples  # type: ignore[attr-defined]
        assert example.wanted == wanted and example.relevant == 2


def test_a_weight_is_above_0(tmp_path: Path, start: Path) -> None:
    made = recipe(start, tmp_path)
    with pytest.raises(SettingsError, match="expected a weight above 0"):
        replace(made.data, more=("a.jsonl=0",))


@pytest.mark.parametrize("kind", KINDS)
def test_bm25_is_the_floor(tmp_path: Path, start: Path, kind: str) -> None:
    made = recipe(start, tmp_path, kind=kind)
    asked = [{**row, "query": row["positive"].split()[2]} for row in held_out()]
    dev = write(tmp_path / "names.jsonl", asked)
    without = [{**row, "query": f"x{number}"} for number, row in enumerate(held_out())]
    test = write(tmp_path / "test.jsonl", without)
    job = open_job(kind, replace(made, data=replace(made.data, dev=str(dev), test=str(test))))
    assert job.plain()["dev"] == {"ndcg@10": 1.0} and job.plain()["test"]["ndcg@10"] < 0.5
    scores = {"ndcg@10": 0.5}
    first, _ = job.beside_plain({"dev": scores, "test": scores})
    assert first.startswith("BM25 reaches ndcg@10 1.0000 on the dev rows, this model 0.5000; the")
