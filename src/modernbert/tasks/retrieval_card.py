"""The model card of a retriever or of a reranker: data, settings, scores, versions."""

from collections.abc import Mapping
from typing import Any

from modernbert.settings import to_mapping
from modernbert.tasks.card import header, versions
from modernbert.tasks.fine_tuning_results import Results
from modernbert.tasks.retrieval_recipe import RetrievalRecipe

_USES = {
    "retrieve": ("one vector a text", "Embedder", "SentenceTransformer", "sentence-similarity"),
    "late-interaction": (
        "one vector a token",
        "MultiVectorEmbedder",
        "MultiVectorEncoder",
        "sentence-similarity",
    ),
    "rerank": ("a score for a query and a document", "Reranker", "CrossEncoder", "text-ranking"),
}


def retrieval_card(kind: str, recipe: RetrievalRecipe, results: Results) -> str:
    """The card as Markdown."""
    gives, own, other, pipeline = _USES[kind]
    best = results.best
    chosen = {
        "learning_rate": f"{best.learning_rate:g}",
        "weight_decay": f"{best.weight_decay:g}",
        "epochs": best.epochs,
        "seed": best.seed,
    }
    settings = {**to_mapping(recipe.data), **to_mapping(recipe.training), **chosen}
    return "\n".join(
        [
            header(library="sentence-transformers", pipeline=pipeline),
            f"# A ModernBERT that gives {gives}",
            "",
            f"Trained from `{recipe.model}` by `modernbert finetune {kind}`. It is loaded by "
            f"`modernbert.{own}.from_pretrained` and by `sentence_transformers.{other}`.",
            "",
            "## Data",
            "",
            *(f"- {note}" for note in results.notes),
            "",
            "## Scores on the held-out data",
            "",
            *_table("metric", _scores(results)),
            "",
            "## Settings",
            "",
            *_table("setting", settings),
            "",
            versions(),
        ]
    )


def _table(name: str, rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return ["None."]
    return [f"| {name} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]


def _scores(results: Results) -> dict[str, str]:
    """Of the best run; beside each, of several seeds, their mean and spread."""
    combination = results.best_combination
    scores = {name: f"{value:.4f}" for name, value in results.best.dev.items()}
    if len(combination.outcomes) > 1:
        mean, spread = combination.mean("dev"), combination.spread("dev")
        for name in scores:
            scores[name] += f" (mean over seeds {mean[name]:.4f} ± {spread[name]:.4f})"
    return scores
