"""`modernbert demo` on a small corpus, and its recipe."""

import re
import shutil
from pathlib import Path

import pytest
from tests.journey.command_line import succeed, write_corpus, write_recipe
from tests.tasks.pretraining.small import World, texts

from modernbert.cli import demo as demo_verb
from modernbert.cli.demo import DemoFolder
from modernbert.cli.demo_results import EXAMPLES
from modernbert.data import python_corpus
from modernbert.settings import load
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tasks.pretraining.trial import Trial, TrialSettings
from modernbert.training.training_settings import learning_rate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoFolder:
    """A demo of a few seconds: another corpus, and a recipe that a user has made smaller."""
    folder = DemoFolder(tmp_path / "a demo")

    def collect(output: Path) -> None:
        output.mkdir(parents=True)
        for file, seed in ((folder.held_out_text, 1), (folder.train_text, 2)):
            write_corpus(file, [*EXAMPLES, *texts(200, seed=seed)])

    monkeypatch.setattr(python_corpus, "collect_python_corpus", collect)
    monkeypatch.setattr(demo_verb, "VOCAB_SIZE", 448)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))  # as many threads as there are
    folder.path.mkdir()
    settings = World(folder.path).settings(
        folder.run,
        tokenizer=str(folder.tokenizer),
        sources=[{"shards": str(folder.train_shards)}],
        evaluation={"shards": str(folder.held_out_shards)},
        packing={"max_seqlen": 128, "bin_tokens": 256},
        training__total_tokens=20_000,
    )
    write_recipe(folder.recipe, settings)
    return folder


def test_from_nothing_to_a_model(folder: DemoFolder) -> None:
    answer = succeed("demo", folder.path)
    stages = [line for line in answer.stderr.splitlines() if line.startswith("[")]
    assert [stage[:5] for stage in stages] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    lines = answer.stdout.splitlines()
    losses = {}
    for name in ("always by frequency", "the model before training", "the model after training"):
        (line,) = [line for line in lines if line.startswith(name)]
        losses[name] = float(line.split()[-2])
        assert line.endswith("%")
    by_frequency, before, after = losses.values()
    assert after < by_frequency < before
    for text in EXAMPLES:
        place = lines.index(text)
        assert lines[place + 1].startswith("    before   ")
        assert lines[place + 2].startswith("    after    ")
        assert lines[place + 1] != lines[place + 2]
    assert (folder.run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert f"model   {folder.run / 'model'}" in lines
    assert f"  modernbert info '{folder.run / 'model'}'" in lines  # quoted, as the path has a space


def test_again_it_shows_the_same(folder: DemoFolder) -> None:
    first = succeed("demo", folder.path)
    weights = folder.run / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert succeed("demo", folder.path).stdout == first.stdout
    assert weights.stat().st_mtime_ns == before
    # Each stage is taken up where its result is missing.
    shutil.rmtree(folder.run / "model")
    assert succeed("demo", folder.path).stdout == first.stdout


def test_it_says_what_it_was_given(folder: DemoFolder) -> None:
    """Tokens, speed, size and machine; again the same when nothing is done."""
    lines = succeed("demo", folder.path).stdout.splitlines()
    (place,) = [at for at, line in enumerate(lines) if "tokens/s; " in line]
    assert re.match(r"\d+(\.\d)?k tokens in 0:\d\d, [\d,]+ tokens/s; \d of width \d+", lines[place])
    assert re.match(r"on .+, \d+ threads?$", lines[place + 1])


def own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speeds: list[float], elapsed: float = 40.0
) -> tuple[DemoFolder, PretrainingRecipe]:
    """The recipe that a machine gets which trains so many tokens a second of each model."""
    folder = DemoFolder(tmp_path / 'a "demo" of café')
    folder.path.mkdir()
    tried = iter(speeds)

    def slow(settings: TrialSettings) -> Trial:
        seconds = sum(settings.lengths) / next(tried)
        flops = settings.flops_per_step / settings.micro_batches
        return Trial(flops_per_second=flops / seconds, num_steps=3, seconds=6.0)

    monkeypatch.setattr("modernbert.tasks.pretraining.trial.try_training", slow)
    demo_verb._choose_recipe(folder, lambda: demo_verb.TOTAL_SECONDS - elapsed)
    assert not list(tried)
    return folder, load(PretrainingRecipe, folder.recipe)


def test_its_own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template of the package, with paths in it that TOML and JSON must quote."""
    folder, recipe = own_recipe(tmp_path, monkeypatch, [1e6])
    assert recipe.output == folder.run and recipe.tokenizer == str(folder.tokenizer)
    assert [phase.packing.max_seqlen for phase in recipe.phases] == [32, 128]
    for phase in recipe.phases:
        assert [source.shards for source in phase.sources] == [str(folder.train_shards)]
        assert phase.evaluation and phase.evaluation.shards == str(folder.held_out_shards)
        config = phase.model.config(max_seqlen=phase.packing.max_seqlen, vocab_size=8192)
        assert config.num_layers == 6 and config.hidden_size == 256
    assert _total_tokens(recipe) == 3_400_000


def test_its_rate_falls_to_zero_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe = own_recipe(tmp_path, monkeypatch, [8_000.0])
    short, long = (phase.training for phase in recipe.phases)
    warmup, total = short.schedule.warmup_tokens, _total_tokens(recipe)
    assert warmup == pytest.approx(0.1 * total, rel=1e-3)

    def expected(tokens: int) -> float:
        return short.schedule.peak_learning_rate * (total - tokens) / (total - warmup)

    for tokens in (warmup, short.total_tokens - 1_000, short.total_tokens):
        found = learning_rate(short.schedule, tokens, short.total_tokens)
        assert found == pytest.approx(expected(tokens), rel=1e-3)
    for tokens in (1_000, long.total_tokens // 2, long.total_tokens):
        found = learning_rate(long.schedule, tokens, long.total_tokens)
        assert found == pytest.approx(expected(short.total_tokens + tokens), rel=1e-3)


def test_a_long_demo_has_a_lower_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for speed in (4_000.0, 8_000.0, 1e6):
        (tmp_path / str(speed)).mkdir()
        _, recipe = own_recipe(tmp_path / str(speed), monkeypatch, [speed])
        peaks.append(recipe.phases[0].training.schedule.peak_learning_rate)
    assert peaks[:2] == [7e-4, 7e-4] and peaks[2] == pytest.approx(4.5e-4, rel=0.01)


def _total_tokens(recipe: PretrainingRecipe) -> int:
    return sum(phase.training.total_tokens for phase in recipe.phases)


@pytest.mark.parametrize(
    ("speeds", "width", "tokens"),
    [
        ([12_000], 256, (1_800_000, 2_100_000)),  # as many as fit into the time
        ([2_000], 256, (300_000, 350_000)),
        ([1_000, 2_500], 192, (350_000, 450_000)),  # too slow for the larger model
        ([20, 100], 192, (20_000, 20_000)),  # so slow that the time does not suffice
    ],
)
def test_a_slow_machine_gets_less_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    speeds: list[float],
    width: int,
    tokens: tuple[int, int],
) -> None:
    _, recipe = own_recipe(tmp_path, monkeypatch, speeds)
    for phase in recipe.phases:
        config = phase.model.config(max_seqlen=phase.packing.max_seqlen, vocab_size=8192)
        assert config.hidden_size == width
    assert tokens[0] <= _total_tokens(recipe) <= tokens[1]
    told = capsys.readouterr().err
    (said,) = re.findall(r"([\d,]+) tokens/s: ", told)
    assert int(said.replace(",", "")) == pytest.approx(speeds[-1], rel=0.02)
    assert ("smaller model" in told) == (width == 192)
    for phase in recipe.phases:
        training = phase.training
        steps = training.total_tokens / phase.packing.bin_tokens
        assert training.evaluate_every_steps and phase.evaluation
        evaluated = steps / training.evaluate_every_steps * (phase.evaluation.max_tokens or 0)
        assert evaluated < training.total_tokens  # a third of the cost of training, each


def test_it_ends_in_time_when_the_speed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By arithmetic: what went by before, the steps, the evaluations and the end."""
    for number, speed in enumerate((700.0, 3_000.0, 9_000.0, 15_000.0)):
        (tmp_path / str(number)).mkdir()
        speeds = [speed] if speed > 2_000 else [speed, 3 * speed]
        _, recipe = own_recipe(tmp_path / str(number), monkeypatch, speeds, elapsed=60.0)
        evaluation = recipe.phases[-1].evaluation
        evaluated = 12 * (evaluation.max_tokens or 0) if evaluation else 0
        seconds = (_total_tokens(recipe) + evaluated / 3) / speeds[-1]
        assert 60 + seconds < demo_verb.TOTAL_SECONDS
        assert seconds > 100


def test_a_demo_that_was_stopped_keeps_its_choice(
    folder: DemoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.recipe.read_bytes()
    monkeypatch.setattr(demo_verb, "_choose_recipe", lambda *_: pytest.fail("chosen again"))
    succeed("demo", folder.path)
    assert folder.recipe.read_bytes() == before
