"""Pretraining: masked-token prediction over token shards, from a recipe to a model folder.

The run's folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    metrics.jsonl     a line for each step, evaluation and checkpoint, of all phases
    report.html       what there is to see, with loss.png and run.png
    examples.json     at the end: masked tokens of held-out text, and what the model predicts
    tensorboard/      the same, where tensorboard is installed
    trackers/         the ids of the run in the trackers that the recipe names
    checkpoints/      what a run that was stopped goes on from
    NAME/             after each phase but the last, under its name: the model, as in model/
    model/            at the end: the model and the tokenizer, as transformers loads them too
    candidates/       of a recipe with [averaging]: the states that may become parts of the average
    averaged/         and the average
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.loader import prefetch
from modernbert.data.packing import Bin, BinStream
from modernbert.data.shards import ShardFolder
from modernbert.devices import copied_ahead
from modernbert.errors import RunError
from modernbert.files import write_whole
from modernbert.hub import CARD
from modernbert.model.choices import choose_attention
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.native.functions import update
from modernbert.report.run_report import EXAMPLES_FILE, ReportWriter
from modernbert.settings import to_mapping, to_toml
from modernbert.tasks.pretraining.averaging import (
    AVERAGED_FOLDER,
    CANDIDATES_FOLDER,
    PARTS_FILE,
    Candidates,
    average_parts,
    candidates,
    write_model,
)
from modernbert.tasks.pretraining.card import description, pretraining_card, step_flops
from modernbert.tasks.pretraining.data import (
    PretrainingData,
    first_batch,
    held_out_examples,
    require_known_ids,
)
from modernbert.tasks.pretraining.models import InFirstProcess, first_weights, starting_model
from modernbert.tasks.pretraining.recipe import PretrainingRecipe, read_recipe
from modernbert.tasks.pretraining.vocabulary_loss import (
    MAX_LOGITS_BYTES,
    held_out_figures,
    predictions,
    vocabulary_cross_entropy,
)
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import run_folder
from modernbert.training.computation import autocast, prepare, undisturbed
from modernbert.training.distributed import ALONE, Group, joined
from modernbert.training.log import Observer, read_metrics, tensorboard_log
from modernbert.training.trackers import tracking
from modernbert.training.trainer import METRICS_FILE, Phase, Progress, Result, Step, Trainer

MODEL_FOLDER = "model"
RECIPE_FILE = "recipe.toml"
_STEPS_AHEAD = 2


def pretrain(
    recipe: PretrainingRecipe | Mapping[str, Any] | Path | str,
    observers: Sequence[Observer] = (),
) -> Result:
    """Train as a recipe says, from wherever an earlier start has left off, and write the model.

    Everything is checked before the first step. A run that is finished and has its model is left
    as it is.

    Args:
        recipe: The recipe, the same as a mapping, or its file.
        observers: Called with each record of the run; see `Trainer`.

    Returns:
        How the run ended; its model is in the folder `model` of the recipe's output.

    Raises:
        ModernBertError: Something in the recipe, or in what it names, cannot be used; see
            `PretrainingData.open` and `Trainer.run`.
    """
    recipe = read_recipe(recipe)
    with joined(recipe.computation.timeout_seconds) as group:
        return _pretrain(recipe, observers, group)


def _pretrain(recipe: PretrainingRecipe, observers: Sequence[Observer], group: Group) -> Result:
    data = [PretrainingData.open(recipe, index) for index in range(len(recipe.phases))]
    models = (model_folder(recipe, index) for index in range(len(recipe.phases)))
    run_folder.require_free(recipe.output, *models)
    model = starting_model(data[0]).to(group.device)
    model.encoder.attention = choose_attention(recipe.attention, group.device)
    tracked = tracking(
        recipe.log,
        recipe.output,
        recipe.output.name,
        {"recipe": to_mapping(recipe)},
        is_first=group.is_first,
    )
    with tracked as trackers:
        trainer = Trainer(
            model,
            [_phase(recipe, index, each, group) for index, each in enumerate(data)],
            recipe.output,
            observers=[
                _RecipeFile(recipe),
                *_tensorboard(recipe),
                ReportWriter(recipe.output),
                *trackers,
                *observers,
            ],
            device=group.device,
            computation=prepare(model, list(model.encoder.layers), recipe.computation, group),
            identity=_identity(recipe, data[0].tokenizer),
            describe=description(data[0].config, recipe, group.device),
            update=update,
        )
        result = trainer.run()
    if result.status != "interrupted" and recipe.averaged_phase is not None:
        averaged = data[recipe.averaged_phase]
        group.first(lambda: _write_average(recipe, averaged, trainer))
    return result


def _tensorboard(recipe: PretrainingRecipe) -> list[Observer]:
    """TensorBoard's log, unless the recipe names it among its trackers."""
    return [] if "tensorboard" in recipe.log.to else tensorboard_log(recipe.output / "tensorboard")


def build_model(recipe: PretrainingRecipe) -> MaskedLanguageModel:
    """Return the model before its first step, each time the same.

    Raises:
        ModernBertError: As `PretrainingData.open`.
    """
    return starting_model(PretrainingData.open(recipe))


def held_out_batches(recipe: PretrainingRecipe, index: int = 0) -> Iterator[MaskedBatch]:
    """Return the batches of every evaluation in a phase; none where it has no evaluation.

    Raises:
        ModernBertError: As `PretrainingData.open`.
    """
    return PretrainingData.open(recipe, index).held_out_batches()


def model_folder(recipe: PretrainingRecipe, index: int) -> Path:
    """Return where the model of a phase is: `model` for the last one, else the phase's name."""
    last = index == len(recipe.phases) - 1
    return recipe.output / (MODEL_FOLDER if last else recipe.phases[index].name)


def masked_token_loss(
    model: MaskedLanguageModel,
    batch: MaskedBatch,
    dropout: Dropout | None = None,
    *,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> Tensor:
    """Compute the loss that pretraining minimises, before it is divided by the step's targets.

    Only the masked tokens go through the head and the vocabulary.

    Args:
        model: In the format of its weights; autocast decides what is computed in.
        batch: On the model's device.
        dropout: Of the attention outputs.
        max_logits_bytes: As in a recipe.

    Returns:
        The sum of the losses of the masked tokens, a scalar.
    """
    rows = predictions(model, batch, dropout)
    if not batch.num_masked:  # a zero with gradients, which all processes make together
        return linear(rows, model.decoder_weight, model.decoder_bias).sum()
    return vocabulary_cross_entropy(
        rows,
        model.decoder_weight,
        model.decoder_bias,
        batch.labels,
        max_logits_bytes=max_logits_bytes,
    )


class Pretraining:
    """Predicting masked tokens: the `Task` of a `Trainer` whose module is a masked language model.

    A step is `bins_per_step` bins. Its masks depend on the seed and each bin's place in the data,
    its dropout on these and the step; so neither depends on how bins are joined, on which process
    computes them, or on a resume.

    Args:
        group: Of the processes that share the bins of every step and of every evaluation.
        fill_up: Give all micro-batches the shape of a full one, for compiled layers.
    """

    def __init__(
        self,
        data: PretrainingData,
        device: torch.device | str = "cpu",
        group: Group = ALONE,
        *,
        fill_up: bool = False,
    ) -> None:
        self.data, self.phase, self.device = data, data.phase, torch.device(device)
        self.group, self.fill_up = group, fill_up
        self._bins = data.bins()

    def steps(self, progress: Progress) -> Iterator[Step]:
        """Yield the steps from a place on, made ahead in a thread and copied ahead to a GPU."""
        made = _steps(self.data, self._bins, progress, self.group)
        with prefetch(map(self._ready, made), _STEPS_AHEAD) as ahead:
            yield from copied_ahead(ahead, self._on_device, self.device)

    def _ready(self, step: Step) -> Step:
        """The step with batches that a GPU can copy; this too is done in the thread."""
        batches = step.micro_batches
        if self.fill_up:
            packing = self.phase.packing
            shape = {
                "total_tokens": self.phase.batch.bins_per_micro_batch * packing.bin_tokens,
                "max_seqlen": packing.max_seqlen,
                "token_id": self.data.config.pad_token_id,
            }
            batches = [each.filled_up(**shape) for each in batches]
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # the thread's own is another one
                batches = [each.pin_memory() for each in batches]
        return replace(step, micro_batches=batches)

    def _on_device(self, step: Step) -> Step:
        batches = [self._copied(each) for each in step.micro_batches]
        return replace(step, micro_batches=batches)

    def _copied(self, batch: MaskedBatch) -> MaskedBatch:
        return batch.to(self.device, non_blocking=self.device.type == "cuda")

    def loss(self, module: nn.Module, micro_batch: MaskedBatch, *, step: int) -> Tensor:
        """Return the sum of the masked tokens' losses; others cost nothing after the encoder."""
        assert isinstance(module, MaskedLanguageModel)
        module.encoder.float8 = self.phase.training.precision == "float8"
        batch = self._copied(micro_batch)
        dropout = self._dropout(batch, step)
        return masked_token_loss(
            module, batch, dropout, max_logits_bytes=self.phase.max_logits_bytes
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Compute mean loss and accuracy on the masked tokens of the held-out batches.

        Where the recipe names general text, on its masked tokens as well.

        Raises:
            ShardError: None of their tokens is masked, because there are so few.
        """
        if self.data.held_out is None:
            return {}
        assert isinstance(module, MaskedLanguageModel)
        module.encoder.float8 = False  # it is evaluated as others will compute it
        figures = self._figures(module, self.data.held_out, self.data.held_out_batches)
        if self.data.general is None:
            return figures
        with both_directions(module.encoder):
            general = self._figures(module, self.data.general, self.data.general_batches)
        renamed = {name.replace("held_out", "general"): value for name, value in general.items()}
        return figures | renamed

    def _figures(
        self,
        module: MaskedLanguageModel,
        folder: ShardFolder,
        batches: Callable[[Group], Iterable[MaskedBatch]],
    ) -> dict[str, float]:
        return held_out_figures(
            module,
            batches(self.group),
            name=str(folder.path),
            max_logits_bytes=self.phase.max_logits_bytes,
            group=self.group,
        )

    def _dropout(self, batch: MaskedBatch, step: int) -> Dropout | None:
        if not self.phase.dropout:
            return None
        seed = self.phase.training.seed
        return Dropout(
            self.phase.dropout,
            keys=[(seed, step, bin_id) for bin_id in batch.bin_ids],
            num_tokens_each=batch.bin_tokens_each,
        )


def _steps(
    data: PretrainingData, stream: BinStream, progress: Progress, group: Group
) -> Iterator[Step]:
    """Steps of which this process reads its share, and knows the size of the whole."""
    while True:
        size = data.phase.batch.bins_at(progress.tokens - data.tokens_before)
        bins, position = stream.take(progress.position, size)
        micro_batches = _share(data, bins, group)
        num_tokens = sum(each.num_tokens for each in bins)
        progress = replace(
            progress,
            step=progress.step + 1,
            tokens=progress.tokens + num_tokens,
            position=position,
        )
        yield Step(
            micro_batches=micro_batches,
            progress=progress,
            num_targets=sum(each.num_masked for each in micro_batches),
            num_tokens=num_tokens,
            fill=num_tokens / (size * data.phase.packing.bin_tokens),
            figures={
                "flops": step_flops(data.config, bins, masked_share=data.phase.predicted_share)
            },
        )


def _share(data: PretrainingData, bins: Sequence[Bin], group: Group) -> list[MaskedBatch]:
    """The micro-batches of a step that are this process's: as many as any other process has."""
    own = [bins[index] for index in group.part(len(bins))]
    micro_batches = [_micro_batch(data, part) for part in _parts(own, data)]
    most_bins = -(-len(bins) // group.size)
    missing = -(-most_bins // data.phase.batch.bins_per_micro_batch) - len(micro_batches)
    if missing:
        micro_batches += [_micro_batch(data, bins[:1]).without_targets()] * missing
    return micro_batches


def _parts(bins: Sequence[Bin], data: PretrainingData) -> Iterator[list[Bin]]:
    rest = iter(bins)
    while part := list(islice(rest, data.phase.batch.bins_per_micro_batch)):
        yield part


def _micro_batch(data: PretrainingData, bins: Sequence[Bin]) -> MaskedBatch:
    batch = collate(
        bins,
        vocab_size=data.config.vocab_size,
        rate=data.phase.masking.rate,
        seed=data.seed,
        objective=data.phase.objective,
    )
    require_known_ids(batch, [folder for folder, _ in data.sources])
    return batch


class _RecipeFile:
    """Writes the recipe into the run's folder, once that is known to be this run's."""

    def __init__(self, recipe: PretrainingRecipe) -> None:
        self.recipe = recipe

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] in ("start", "resume"):
            write_whole(self.recipe.output / RECIPE_FILE, to_toml(self.recipe).encode())


def _identity(recipe: PretrainingRecipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the weights depend on besides the phases."""
    return {
        "task": "pretraining",
        "first_weights": first_weights(recipe.phases[0].model),
        "tokenizer": tokenizer.fingerprint,
    }


def _phase(recipe: PretrainingRecipe, index: int, data: PretrainingData, group: Group) -> Phase:
    """What the trainer is told of a phase."""
    phase = recipe.phases[index]
    told = Phase(
        name=phase.name,
        task=Pretraining(data, group.device, group, fill_up=recipe.computation.compile),
        settings=phase.training,
        goes_on=recipe.data_begins(index) != index,
        start_from=phase.start_from,
        identity=data.identity,
        begin=_Configure(data),
        end=InFirstProcess(group, _WriteModel(recipe, index, data)),
    )
    if recipe.averaging is None or recipe.averaged_phase != index:
        return told
    folder = recipe.output / CANDIDATES_FOLDER
    keep = Candidates(folder, recipe.averaging, data.tokenizer)
    return replace(told, evaluated=InFirstProcess(group, keep))


def _write_average(recipe: PretrainingRecipe, data: PretrainingData, trainer: Trainer) -> None:
    """The mean of the states that were kept, with its loss beside theirs."""
    folder = recipe.output / AVERAGED_FOLDER
    if folder.exists():
        return
    parts = candidates(recipe.output / CANDIDATES_FOLDER)
    model = average_parts(parts).to(trainer.device)
    _Configure(data)(model)
    with (
        undisturbed(model, trainer.device),
        autocast(trainer.device, data.phase.training.precision),
    ):
        figures = Pretraining(data, trainer.device).evaluate(model)
    note = {**figures, "parts": [part.as_mapping() for part in parts]}
    assert recipe.averaged_phase is not None
    card = pretraining_card(recipe, recipe.averaged_phase, model.config, figures, parts)
    try:
        write_model(folder, model, data.tokenizer, {PARTS_FILE: note, CARD: card})
    except OSError as error:
        raise RunError(
            f"{folder}: could not be written: {error}; the training is saved: free some space and "
            "run the same command again"
        ) from None
    trainer.observe("averaging", **note, path=str(folder))


@contextmanager
def both_directions(encoder: Encoder) -> Iterator[None]:
    """Let the tokens see both sides for a while, as in a masked phase."""
    was_causal, encoder.is_causal = encoder.is_causal, False
    try:
        yield
    finally:
        encoder.is_causal = was_causal


@dataclass(frozen=True)
class _Configure:
    """Gives a model the longest sequence, the angles and the direction of a phase; weights stay."""

    data: PretrainingData

    def __call__(self, module: nn.Module) -> None:
        assert isinstance(module, MaskedLanguageModel)
        module.config = module.encoder.config = self.data.config
        module.encoder.is_causal = self.data.phase.objective == "causal"


@dataclass(frozen=True)
class _WriteModel:
    """Writes the model after a phase, unless it is there: its weights are always the same."""

    recipe: PretrainingRecipe
    index: int
    data: PretrainingData

    def __call__(self, module: nn.Module) -> None:
        folder = model_folder(self.recipe, self.index)
        if folder.exists():
            return
        assert isinstance(module, MaskedLanguageModel)
        card = pretraining_card(self.recipe, self.index, module.config, self._figures())
        try:
            if folder.name == MODEL_FOLDER:
                self._write_examples(module)
            write_model(folder, module, self.data.tokenizer, {CARD: card})
        except OSError as error:
            raise RunError(
                f"{folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None

    def _write_examples(self, model: MaskedLanguageModel) -> None:
        """What the model predicts for some tokens of the first held-out batch."""
        device, phase = model.decoder_weight.device, self.data.phase
        batch = first_batch(self.data.held_out_batches())
        if batch is None or phase.objective == "causal":
            return
        with undisturbed(model, device), autocast(device, phase.training.precision):
            examples = held_out_examples(model, batch, self.data.tokenizer)
        text = json.dumps(examples, ensure_ascii=False, indent=1)
        write_whole(self.recipe.output / EXAMPLES_FILE, text.encode())

    def _figures(self) -> dict[str, Any]:
        """Of the phase's last evaluation."""
        name, figures = self.recipe.phases[self.index].name, dict[str, Any]()
        for row in read_metrics(self.recipe.output / METRICS_FILE):
            if row["kind"] == "evaluation" and row.get("phase", name) == name:
                figures = row
        return figures
