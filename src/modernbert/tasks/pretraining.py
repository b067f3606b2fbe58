"""Pretraining: masked-token prediction over token shards, from a recipe to a model folder.

The run's folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    metrics.jsonl     a line for each step, evaluation and checkpoint
    tensorboard/      the same, where tensorboard is installed
    checkpoints/      what a run that was stopped goes on from
    model/            at the end: the model and the tokenizer, as transformers loads them too
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.loader import prefetch
from modernbert.data.packing import Bin, BinStream
from modernbert.errors import RunError, ShardError
from modernbert.files import new_folder, write_whole
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.settings import to_toml
from modernbert.tasks.pretraining_data import PretrainingData, require_known_ids
from modernbert.tasks.recipe import PretrainingRecipe
from modernbert.tasks.vocabulary_loss import loss_and_hits, vocabulary_cross_entropy
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import run_folder
from modernbert.training.log import Observer, tensorboard_log
from modernbert.training.trainer import Progress, Result, Step, Trainer

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
    data = PretrainingData.open(recipe)
    _check_output(recipe.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _first_model(data).to(device)
    trainer = Trainer(
        model,
        Pretraining(data, device),
        recipe.training,
        recipe.output,
        observers=[
            _RecipeFile(recipe),
            *tensorboard_log(recipe.output / "tensorboard"),
            *observers,
        ],
        device=device,
        identity=data.identity,
    )
    result = trainer.run()
    if result.status != "interrupted":
        _write_model(recipe.output, model, data.tokenizer)
    return result


def build_model(recipe: PretrainingRecipe) -> MaskedLanguageModel:
    """The model before its first step, each time the same.

    Raises:
        ModernBertError: as `PretrainingData.open`.
    """
    return _first_model(PretrainingData.open(recipe))


def held_out_batches(recipe: PretrainingRecipe) -> Iterator[MaskedBatch]:
    """The batches of every evaluation; none where the recipe has no evaluation.

    Raises:
        ModernBertError: as `PretrainingData.open`.
    """
    return PretrainingData.open(recipe).held_out_batches()


class Pretraining:
    """Predicting masked tokens: the `Task` of a `Trainer` whose module is a masked language model.

    A step is `bins_per_step` bins. Its masks depend on the seed and each bin's place in the data,
    its dropout on these and the step; so neither depends on how bins are joined, or on a resume.
    """

    def __init__(self, data: PretrainingData, device: torch.device | str = "cpu") -> None:
        self.data, self.recipe, self.device = data, data.recipe, torch.device(device)
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
        predictions = _predictions(module, batch, self._dropout(batch, step))
        return vocabulary_cross_entropy(
            predictions,
            module.decoder_weight,
            module.decoder_bias,
            batch.labels,
            max_logits_bytes=self.recipe.max_logits_bytes,
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Mean loss and accuracy on the masked tokens of the held-out batches.

        Raises:
            ShardError: none of their tokens is masked, because there are so few.
        """
        if self.data.held_out is None:
            return {}
        assert isinstance(module, MaskedLanguageModel)
        num_masked = 0
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, hits
        for batch in self.data.held_out_batches():
            num_masked += batch.num_masked
            totals += self._held_out_totals(module, batch.to(self.device, non_blocking=True))
        if not num_masked:
            raise ShardError(
                f"{self.data.held_out.path}: so small that no token of it is masked; "
                "hold out more documents"
            )
        loss, hits = (totals / num_masked).tolist()
        return {"held_out_loss": loss, "held_out_accuracy": hits}

    def _held_out_totals(self, module: MaskedLanguageModel, batch: MaskedBatch) -> Tensor:
        totals = loss_and_hits(
            _predictions(module, batch, None),
            module.decoder_weight,
            module.decoder_bias,
            batch.labels,
            max_logits_bytes=self.recipe.max_logits_bytes,
        )
        return torch.stack([total.double() for total in totals])

    def _dropout(self, batch: MaskedBatch, step: int) -> Dropout | None:
        if not self.recipe.dropout:
            return None
        seed = self.recipe.training.seed
        return Dropout(
            self.recipe.dropout,
            keys=[(seed, step, bin_id) for bin_id in batch.bin_ids],
            num_tokens_each=batch.bin_tokens_each,
        )


def _predictions(
    module: MaskedLanguageModel, batch: MaskedBatch, dropout: Dropout | None
) -> Tensor:
    """(num_masked, hidden_size). What the head makes of the masked tokens."""
    hidden = module.encoder(batch.batch, dropout=dropout)
    predictions: Tensor = module.head(hidden.index_select(0, batch.masked_indices))
    return predictions


def _steps(data: PretrainingData, stream: BinStream, progress: Progress) -> Iterator[Step]:
    size = data.recipe.batch.bins_per_step
    while True:
        bins, position = stream.take(progress.position, size)
        micro_batches = [_micro_batch(data, part) for part in _parts(bins, data)]
        num_tokens = sum(each.batch.total_tokens for each in micro_batches)
        progress = Progress(
            step=progress.step + 1, tokens=progress.tokens + num_tokens, position=position
        )
        yield Step(
            micro_batches=micro_batches,
            progress=progress,
            num_targets=sum(each.num_masked for each in micro_batches),
            num_tokens=num_tokens,
            fill=num_tokens / (size * data.recipe.packing.bin_tokens),
        )


def _parts(bins: Sequence[Bin], data: PretrainingData) -> Iterator[list[Bin]]:
    rest = iter(bins)
    while part := list(islice(rest, data.recipe.batch.bins_per_micro_batch)):
        yield part


def _micro_batch(data: PretrainingData, bins: Sequence[Bin]) -> MaskedBatch:
    batch = collate(
        bins,
        vocab_size=data.config.vocab_size,
        rate=data.recipe.masking.rate,
        seed=data.recipe.seed,
    )
    require_known_ids(batch, [folder for folder, _ in data.sources])
    return batch


def _first_model(data: PretrainingData) -> MaskedLanguageModel:
    settings = data.recipe.model
    if settings.start is None:
        return initialize(MaskedLanguageModel(data.config), seed=settings.seed)
    model = MaskedLanguageModel(data.config)
    model.load_state_dict(MaskedLanguageModel.from_pretrained(settings.start).state_dict())
    return model


class _RecipeFile:
    """Writes the recipe into the run's folder, once that is known to be this run's."""

    def __init__(self, recipe: PretrainingRecipe) -> None:
        self.recipe = recipe

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] in ("start", "resume"):
            write_whole(self.recipe.output / RECIPE_FILE, to_toml(self.recipe).encode())


def _check_output(output: Path) -> None:
    """The model's place must be free, or belong to the run that is there."""
    model = output / MODEL_FOLDER
    if model.exists() and not (output / run_folder.RUN_FILE).exists():
        raise RunError(f"{model}: is there already and of no run; take another output")


def _write_model(output: Path, model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    """Write the model's folder unless it is there: a run's weights are always the same."""
    folder = output / MODEL_FOLDER
    with run_folder.locked(output):
        if folder.exists():
            return
        try:
            with new_folder(folder) as partial:
                model.save_pretrained(partial)
                tokenizer.save_pretrained(partial, model_max_length=model.config.max_seqlen)
        except OSError as error:
            raise RunError(
                f"{folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None
