"""Averages of models and of a run's states, with the held-out loss of the parts beside theirs.

It helps where the models are late states of one training: near each other, on the same slope.

During a phase that is to be averaged, `Candidates` keeps the states that may become parts: model
folders in `candidates/` of the run, each with the figures of its evaluation in `evaluation.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modernbert.data.loader import held_out_batches
from modernbert.data.packing import PackingSettings
from modernbert.data.shards import ShardFolder
from modernbert.devices import best_device, widest_dtype
from modernbert.errors import ConfigError, InputError, RunError, ShardError
from modernbert.files import remove_folder, remove_leftovers, updated_folder
from modernbert.json_files import read_object
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.pretraining.models import is_checkpoint, load_model
from modernbert.tasks.pretraining.recipe import AveragingSettings
from modernbert.tasks.pretraining.vocabulary_loss import held_out_figures
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import checkpoint

M = TypeVar("M", bound=SavedModel)


@torch.no_grad()
def average(models: Iterable[tuple[M, float]]) -> M:
    """Return the weighted mean of some models, each with its weight; they are asked for one by one.

    Sums are float64 where the device has it, so that the order leaves no trace. The result is the
    first model, changed.

    Raises:
        InputError: No model, or a weight that is not above 0.
        ConfigError: Two models whose numbers differ.
    """
    first: M | None = None
    sums: dict[str, Tensor] = {}
    total = 0.0
    for model, weight in models:
        if not 0 < weight < float("inf"):
            raise InputError(f"weight: got {weight}, expected a number above 0")
        if first is None:
            first = model
            sums = {
                name: torch.zeros_like(p, dtype=widest_dtype(p.device)) for name, p in _named(first)
            }
        _check_alike(first, model)
        for name, parameter in _named(model):
            sums[name].add_(parameter, alpha=weight)
        total += weight
    if first is None:
        raise InputError("no models: an average needs at least one")
    for name, parameter in _named(first):
        parameter.copy_(sums[name] / total)
    return first


def _named(model: SavedModel) -> Iterable[tuple[str, Tensor]]:
    return model.named_parameters()


def _check_alike(first: SavedModel, other: SavedModel) -> None:
    for name, value in vars(first.config).items():
        if (got := getattr(other.config, name)) != value:
            raise ConfigError(
                f"{name} is {value} in one model and {got} in another; "
                "only states of one model can be averaged"
            )


CANDIDATES_FOLDER = "candidates"
AVERAGED_FOLDER = "averaged"
EVALUATION_FILE = "evaluation.json"
PARTS_FILE = "averaging.json"
LOSS = "held_out_loss"

Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class AveragedPart:
    """A model that goes into an average.

    Attributes:
        figures: Of its evaluation; empty where there is none.
    """

    folder: Path
    weight: float = 1.0
    figures: Figures

    def as_mapping(self) -> dict[str, Any]:
        """Return name, weight and figures as JSON values."""
        return {"name": self.folder.name, "weight": self.weight, **self.figures}


@dataclass(frozen=True)
class Candidates:
    """The states of a phase that its average may be made of: told of each evaluation.

    Which ones stay follows from the evaluations alone, so a run that was killed ends with the same.

    Attributes:
        folder: Of all of them.
    """

    folder: Path
    settings: AveragingSettings
    tokenizer: Tokenizer

    def __call__(self, module: nn.Module, step: int, figures: Figures) -> None:
        """Keep this state if it is one of the last or of the best, and let go whom it displaces.

        Raises:
            RunError: It cannot be written.
        """
        assert isinstance(module, MaskedLanguageModel)
        if self.folder.exists():
            remove_leftovers(self.folder)
        known = {part.folder.name: part.figures[LOSS] for part in candidates(self.folder)}
        name = f"step-{step:08d}"
        chosen = self.settings.chosen({**known, name: figures[LOSS]})
        if name in chosen and name not in known:
            self._write(name, module, figures)
        for displaced in known.keys() - chosen:
            remove_folder(self.folder / displaced)

    def _write(self, name: str, model: MaskedLanguageModel, figures: Figures) -> None:
        try:
            write_model(self.folder / name, model, self.tokenizer, {EVALUATION_FILE: dict(figures)})
        except OSError as error:
            raise RunError(f"{self.folder / name}: could not be written: {error}") from None


def candidates(folder: Path) -> list[AveragedPart]:
    """Return those that a run has kept, in the order of their steps."""
    return [
        AveragedPart(folder=each, figures=read_object(each / EVALUATION_FILE, RunError))
        for each in sorted(folder.glob("step-*"))
    ]


def average_parts(parts: Sequence[AveragedPart]) -> MaskedLanguageModel:
    """Return the mean of their weights, read one after another.

    Raises:
        ModelFolderError: A part that is no masked language model.
        CheckpointError: A part that is a damaged checkpoint.
        ConfigError: Parts whose numbers differ.
        InputError: No parts, or a weight that is not above 0.
    """
    return average((load_model(part.folder), part.weight) for part in parts)


def measured(parts: Sequence[AveragedPart], held_out: "HeldOut") -> list[AveragedPart]:
    """Return the parts with the figures that they reach on held-out shards.

    Raises:
        ModelFolderError: A part that is no masked language model.
    """
    return [replace(part, figures=held_out.figures(load_model(part.folder))) for part in parts]


def best(parts: Sequence[AveragedPart], number: int) -> list[AveragedPart]:
    """Return those with the lowest held-out losses, in the order in which they came.

    Raises:
        InputError: More than there are, or parts that were not evaluated.
    """
    if number > len(parts):
        raise InputError(f"best: got {number}, but there are only {len(parts)} models")
    if any(LOSS not in part.figures for part in parts):
        raise InputError("best: needs the held-out losses of the models; name held-out shards")
    limit = sorted(part.figures[LOSS] for part in parts)[number - 1]
    return [part for part in parts if part.figures[LOSS] <= limit][:number]


class HeldOut:
    """Held-out shards to evaluate models on that come without a recipe.

    Raises:
        ShardError: No such shards, or made with another tokenizer.
    """

    def __init__(self, shards: Path, tokenizer: Tokenizer, max_tokens: int | None = None) -> None:
        self.folder, self.max_tokens = ShardFolder.open(shards), max_tokens
        if self.folder.tokenizer_fingerprint != tokenizer.fingerprint:
            raise ShardError(f"{shards}: made with another tokenizer than that of the models")

    def figures(self, model: MaskedLanguageModel) -> Figures:
        """Compute loss and accuracy of a model on pieces as long as it reads."""
        longest = model.config.max_seqlen
        packing = PackingSettings(
            max_seqlen=longest, bin_tokens=max(longest, PackingSettings().bin_tokens)
        )
        batches = held_out_batches(self.folder, packing, seed=0, max_tokens=self.max_tokens)
        there = model.to(best_device()).eval()
        with torch.no_grad():
            return held_out_figures(there, batches, name=str(self.folder.path))


def write_model(
    folder: Path,
    model: MaskedLanguageModel,
    tokenizer: Tokenizer,
    files: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's folder with its tokenizer and other files, whole or not at all.

    Args:
        folder: The folder to write, which may be there already.
        model: The model, on any device.
        tokenizer: The tokenizer that the model was trained with.
        files: The content of each: a text as it is, all else as JSON.

    Raises:
        OSError: It cannot be written.
    """
    with updated_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial, model_max_length=model.config.max_seqlen)
        for name, content in (files or {}).items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
            (partial / name).write_text(text, encoding="utf-8")


def parts_of(paths: Sequence[Path], weights: Sequence[float] = ()) -> list[AveragedPart]:
    """Find the models that paths lead to: model folders, checkpoints, or folders of such.

    Of a run's folder these are the states that were kept for its average, else its checkpoints.

    Raises:
        InputError: A path that leads to no model, or another number of weights than of models.
    """
    folders = [folder for path in paths for folder in _models_in(path)]
    if weights and len(weights) != len(folders):
        raise InputError(f"weights: got {len(weights)} for {len(folders)} models")
    return [
        AveragedPart(folder=folder, weight=weight, figures={})
        for folder, weight in zip(folders, weights or [1.0] * len(folders), strict=True)
    ]


def _models_in(path: Path) -> list[Path]:
    if _is_model(path):
        return [path]
    inner = (path / name for name in (CANDIDATES_FOLDER, checkpoint.FOLDER))
    places = [place for place in inner if place.is_dir()] or [path]
    found = sorted(each for each in places[0].glob("*") if _is_model(each))
    if not found:
        raise InputError(f"{path}: neither the folder of a model nor a folder that contains some")
    return found


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file() or is_checkpoint(path)
