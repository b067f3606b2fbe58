"""The model card of a retriever or of a reranker: data, settings, scores, versions."""

from collections.abc import Mapping
from typing import Any

from modernbert.settings import to_mapping
from modernbert.tasks.card import header, versions
from modernbert.tasks.ranking.recipe import RetrievalRecipe
from modernbert.tasks.tuning.card import score_table
from modernbert.tasks.tuning.results import Results

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
            "## Scores",
            "",
            score_table(results),
            "",
            "## Settings",
            "",
            *_table("setting", settings),
            "",
            versions(),
        ]
    )


def _table(name: str, rows: Mapping[str, Any]) -> list[str]:
    return [f"| {name} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
