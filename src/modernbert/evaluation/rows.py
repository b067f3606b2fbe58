"""The scores of a fine-tuned model on labelled rows, without any training; and its calibration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modernbert.data.rows.tables import head_of
from modernbert.errors import InputError, ModelFolderError
from modernbert.files import updated_folder, write_whole
from modernbert.kinds import CONFIG_FILE, MODELS, NAMES, model_kind
from modernbert.metrics.calibration import best_temperature, best_thresholds, calibration_error
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.config_writer import calibration_keys
from modernbert.model.heads import SequenceClassifier
from modernbert.settings import parse
from modernbert.tasks.finetune import find_verb, open_job
from modernbert.tasks.labels.multi_label import MultiLabel, flags_of
from modernbert.tasks.labels.objective import LabelObjective
from modernbert.tasks.tuning.job import Review, TuningJob
from modernbert.tasks.tuning.page import write_page_of_scores
from modernbert.training.distributed import ALONE


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What makes probabilities of a model's outputs; see `ClassifierSettings`."""

    temperature: float
    thresholds: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """How good a model is on some rows.

    Attributes:
        job: How the rows were read.
        scores: All scores.
        review: A detailed look at the predictions.
        calibration: What was found by these rows and stored with the model, if it was asked for.
    """

    model: str
    job: TuningJob
    scores: Mapping[str, float]
    review: Review
    calibration: Calibration | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return everything but the review's mistakes as JSON values."""
        found: dict[str, Any] = {
            "model": self.model,
            "verb": self.job.verb,
            "rows": self.job.splits["dev"],
            "scores": dict(self.scores),
        }
        if self.review.labels:
            found["labels"] = [vars(each) for each in self.review.labels]
        if self.calibration is not None:
            found["calibration"] = vars(self.calibration)
        return found

    def write(self, folder: Path) -> Path:
        """Write the page and the results into a folder; return the page.

        Raises:
            RunError: The page cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_mapping(), indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / "results.json", text.encode())
        path = folder / "report.html"
        write_page_of_scores(path, self.job, self.model, self.scores, self.review)
        return path


def score_rows(
    model: str, source: str, columns: dict[str, Any], *, calibrate: bool = False
) -> ScoredRows:
    """Score a model on rows as those that its verb of `finetune` reads.

    Args:
        model: A folder, or a hub id.
        source: A file or folder of labelled rows.
        columns: Which columns they have, by the names of the recipe's data.
        calibrate: Whether to find a temperature, and thresholds where a text may have several
            labels, by these rows, and to store them in the model's config.json.

    Raises:
        InputError: The model has nothing to be scored on rows, or nothing to be calibrated.
        ModernBertError: The model or the rows cannot be used.
    """
    folder = find_model(model, weights=True)
    verb, labels = _verb_and_labels(folder)
    data = {"train": source, "dev": source, **columns, **labels}
    values = {"model": str(folder), "output": "runs/none", "data": data}
    recipe = parse(find_verb(verb).recipe_class, values, where="options")
    head = head_of(source, recipe.data, getattr(recipe.data, "asked", ()))
    if head is not None:
        recipe.data.require_columns(head)
    job = open_job(verb, recipe)
    module, found = job.load(folder).eval(), None
    if verb == "classify":
        assert isinstance(module, SequenceClassifier) and isinstance(job.objective, LabelObjective)
        if calibrate:
            if not Path(model).exists():
                raise InputError(f"{model}: is a model on the hub; calibrate a folder of your own")
            found = _calibrate(module, job.objective)
            _store(folder, found)
        if isinstance(criterion := job.objective.criterion, MultiLabel):
            criterion.use_thresholds(module.settings.thresholds)
    elif calibrate:
        raise InputError(f"{folder}: holds {NAMES[model_kind(folder)]}; only labels are calibrated")
    review = job.objective.review(module, "dev", ALONE)
    scores = job.objective.evaluate(module, "dev", ALONE)
    if review.calibration:
        scores["calibration_error"] = calibration_error(review.calibration)
    return ScoredRows(model=model, job=job, scores=scores, review=review, calibration=found)


def _calibrate(module: SequenceClassifier, objective: LabelObjective[Any]) -> Calibration:
    """Find what makes the probabilities of a module right for the rows; the module takes it."""
    module.settings = replace(module.settings, temperature=1.0, thresholds=None)
    outputs = objective.outputs(module, "dev", ALONE).double()
    examples, thresholds = objective.splits["dev"].examples, None
    if isinstance(objective.criterion, MultiLabel):
        expected = flags_of(examples, len(objective.criterion.labels)).numpy()
        temperature = best_temperature(outputs.numpy(), expected)
        chances = (outputs / temperature).sigmoid()
        thresholds = tuple(best_thresholds(chances.numpy(), expected))
    else:
        temperature = best_temperature(outputs.numpy(), [each.label for each in examples])
    module.settings = replace(module.settings, temperature=temperature, thresholds=thresholds)
    return Calibration(temperature=temperature, thresholds=thresholds)


def _store(folder: Path, found: Calibration) -> None:
    """Write a calibration into a folder's config.json."""
    published = {
        **read_config_file(folder),
        **calibration_keys(found.temperature, found.thresholds),
    }
    text = json.dumps(published, indent=2, ensure_ascii=False) + "\n"
    with updated_folder(folder, error=ModelFolderError) as partial:
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")


def _verb_and_labels(folder: Path) -> tuple[str, dict[str, Any]]:
    """The verb of a model, and its labels where these are in the order of its outputs."""
    kind = model_kind(folder)
    program, _, verb = MODELS[kind].made_by.partition(" ")
    if kind == "encoder":
        verb = "retrieve"
    elif program != "finetune":
        raise InputError(
            f"{folder}: holds {NAMES[kind]}, which has no scores on rows; fine-tune it first, or "
            "name a suite, which does that"
        )
    if verb not in ("classify", "tag"):
        return verb, {}
    config = read_config_file(folder)
    if verb == "classify" and config.get("problem_type") == "regression":
        return "regress", {}
    names = config.get("id2label") or {}
    return verb, {"labels": [names[key] for key in sorted(names, key=int)]}
