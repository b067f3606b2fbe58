"""The scores of a fine-tuned model on labelled rows, without any training."""

from pathlib import Path
from typing import Any

from modernbert.data.rows.tables import head_of
from modernbert.errors import InputError
from modernbert.kinds import NAMES, ModelKind, model_kind
from modernbert.model.config_file import find_model, read_config_file
from modernbert.settings import parse
from modernbert.tasks.finetune import find_verb, open_job
from modernbert.training.distributed import ALONE

_VERBS: dict[ModelKind, str] = {
    "classifier": "classify",
    "reranker": "rerank",
    "tagger": "tag",
    "answerer": "answer",
    "embedder": "retrieve",
    "encoder": "retrieve",
    "multi_vector": "late-interaction",
    "sparse": "sparse",
}
"""The verb whose rows and scores are those of a kind of model."""


def score_rows(model: str, source: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Score a model on rows as those that its verb of `finetune` reads.

    Args:
        model: A folder, or an id of the hub.
        source: The rows.
        columns: Which columns they have, by the names of the recipe's data.

    Returns:
        The verb, how the rows were read, and all scores, as JSON values.

    Raises:
        InputError: The model has nothing to be scored on rows.
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
    module = job.load(folder).eval()
    scores = job.objective.evaluate(module, "dev", ALONE)
    return {"model": model, "verb": verb, "rows": job.splits["dev"], "scores": scores}


def _verb_and_labels(folder: Path) -> tuple[str, dict[str, Any]]:
    """The verb of a model, and its labels where these are in the order of its outputs."""
    kind = model_kind(folder)
    if kind not in _VERBS:
        raise InputError(
            f"{folder}: holds {NAMES[kind]}, which has no scores on rows; fine-tune it first, or "
            "name a suite, which does that"
        )
    verb = _VERBS[kind]
    if verb not in ("classify", "tag"):
        return verb, {}
    config = read_config_file(folder)
    if verb == "classify" and config.get("problem_type") == "regression":
        return "regress", {}
    names = config.get("id2label") or {}
    return verb, {"labels": [names[key] for key in sorted(names, key=int)]}
