"""Pretraining: masked-token prediction over token shards, from a recipe to a model folder.

The run's folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    metrics.jsonl     a line for each step, evaluation and checkpoint, of all phases
    report.html       what there is to see, with loss.png and run.png
    tensorboard/      the same, where tensorboard is installed
    checkpoints/      what a run that was stopped goes on from
    NAME/             after each phase but the last, under its name: the model, as in model/
    model/            at the end: the model and the tokenizer, as transformers loads them too
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.loader import prefetch
from modernbert.data.packing import Bin, BinStream
from modernbert.errors import RunError
from modernbert.files import new_folder, write_whole
from modernbert.model.config import EncoderConfig
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.report.run_report import ReportWriter
from modernbert.settings import to_toml
from modernbert.tasks.held_out import held_out_figures, predictions
from modernbert.tasks.pretraining_data import PretrainingData, require_known_ids
from modernbert.tasks.pretraining_facts import description, step_flops
from modernbert.tasks.recipe import PretrainingRecipe
from modernbert.tasks.starting_model import first_weights, starting_model
from modernbert.tasks.vocabulary_loss import vocabulary_cross_entropy
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import run_folder
from modernbert.training.log import Observer, tensorboard_log
from modernbert.training.trainer import Phase, Progress, Result, Step, Trainer

MODEL_FOLDER = "model"
RECIPE_FILE = "recipe.toml"
_STEPS_AHEAD = 2


def pretrain(recipe: PretrainingRecipe, observers: Sequence[Observer] = ()) -> Result:
    """Train as a recipe says, from wherever an earlier start has left off, and write the model.

    Everything is checked before the first step. A run that is finished and has its model is left
    as it is.

    observers: called with each record of the run; see `Trainer`.

    Raises:
        ModernBertError: something in the recipe, or in what it names, cannot be used; see
            `PretrainingData.open` and `Trainer.run`.
    """
    data = [PretrainingData.open(recipe, index) for index in range(len(recipe.phases))]
    _check_output(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(
        starting_model(data[0]).to(device),
        [_phase(recipe, index, each, device) for index, each in enumerate(data)],
        recipe.output,
        observers=[
            _RecipeFile(recipe),
            *tensorboard_log(recipe.output / "tensorboard"),
            ReportWriter(recipe.output),
            *observers,
        ],
        device=device,
        identity=_identity(recipe, data[0].tokenizer),
        describe=description(data[0].config, recipe, device),
    )
    return trainer.run()


def build_model(recipe: PretrainingRecipe) -> MaskedLanguageModel:
    """The model before its first step, each time the same.

    Raises:
        ModernBertError: as `PretrainingData.open`.
    """
    return starting_model(PretrainingData.open(recipe))


def held_out_batches(recipe: PretrainingRecipe, index: int = 0) -> Iterator[MaskedBatch]:
    """The batches of every evaluation in a phase; none where it has no evaluation.

    Raises:
        ModernBertError: as `PretrainingData.open`.
    """
    return PretrainingData.open(recipe, index).held_out_batches()


def model_folder(recipe: PretrainingRecipe, index: int) -> Path:
    """Where the model is after a phase: `model` after the last, else under the phase's name."""
    last = index == len(recipe.phases) - 1
    return recipe.output / (MODEL_FOLDER if last else recipe.phases[index].name)


class Pretraining:
    """Predicting masked tokens: the `Task` of a `Trainer` whose module is a masked language model.

    A step is `bins_per_step` bins. Its masks depend on the seed and each bin's place in the data,
    its dropout on these and the step; so neither depends on how bins are joined, or on a resume.
    """

    def __init__(self, data: PretrainingData, device: torch.device | str = "cpu") -> None:
        self.data, self.phase, self.device = data, data.phase, torch.device(device)
        self._bins = data.bins()

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The steps from a place on, made ahead in a thread."""
        return prefetch(_steps(self.data, self._bins, progress), _STEPS_AHEAD)

    def loss(self, module: nn.Module, micro_batch: MaskedBatch, *, step: int) -> Tensor:
        """The sum of the losses of the masked tokens; the others cost nothing after the encoder."""
        if not micro_batch.num_masked:
            return torch.zeros((), device=self.device)
        assert isinstance(module, MaskedLanguageModel)
        batch = micro_batch.to(self.device, non_blocking=True)
        return vocabulary_cross_entropy(
            predictions(module, batch, self._dropout(batch, step)),
            module.decoder_weight,
            module.decoder_bias,
            batch.labels,
            max_logits_bytes=self.phase.max_logits_bytes,
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Mean loss and accuracy on the masked tokens of the held-out batches.

        Raises:
            ShardError: none of their tokens is masked, because there are so few.
        """
        if self.data.held_out is None:
            return {}
        assert isinstance(module, MaskedLanguageModel)
        return held_out_figures(
            module,
            self.data.held_out_batches(),
            name=str(self.data.held_out.path),
            max_logits_bytes=self.phase.max_logits_bytes,
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


def _steps(data: PretrainingData, stream: BinStream, progress: Progress) -> Iterator[Step]:
    while True:
        size = data.phase.batch.bins_at(progress.tokens - data.tokens_before)
        bins, position = stream.take(progress.position, size)
        micro_batches = [_micro_batch(data, part) for part in _parts(bins, data)]
        num_tokens = sum(each.batch.total_tokens for each in micro_batches)
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
            figures={"flops": step_flops(data.config, bins, masked_share=data.phase.masking.rate)},
        )


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


def _phase(
    recipe: PretrainingRecipe, index: int, data: PretrainingData, device: torch.device
) -> Phase:
    """What the trainer is told of a phase."""
    phase = recipe.phases[index]
    return Phase(
        name=phase.name,
        task=Pretraining(data, device),
        settings=phase.training,
        goes_on=recipe.data_begins(index) != index,
        start_from=phase.start_from,
        identity=data.identity,
        begin=_Configure(data.config),
        end=_WriteModel(model_folder(recipe, index), data.tokenizer),
    )


@dataclass(frozen=True)
class _Configure:
    """Gives a model the longest sequence and the angles of a phase; its weights stay."""

    config: EncoderConfig

    def __call__(self, module: nn.Module) -> None:
        assert isinstance(module, MaskedLanguageModel)
        module.config = module.encoder.config = self.config


@dataclass(frozen=True)
class _WriteModel:
    """Writes a model's folder unless it is there: a run's weights are always the same."""

    folder: Path
    tokenizer: Tokenizer

    def __call__(self, module: nn.Module) -> None:
        if self.folder.exists():
            return
        assert isinstance(module, MaskedLanguageModel)
        try:
            with new_folder(self.folder) as partial:
                module.save_pretrained(partial)
                self.tokenizer.save_pretrained(partial, model_max_length=module.config.max_seqlen)
        except OSError as error:
            raise RunError(
                f"{self.folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None


def _check_output(recipe: PretrainingRecipe) -> None:
    """The models' places must be free, or belong to the run that is there."""
    for index in range(len(recipe.phases)):
        model = model_folder(recipe, index)
        if model.exists() and not (recipe.output / run_folder.RUN_FILE).exists():
            raise RunError(f"{model}: is there already and of no run; take another output")
