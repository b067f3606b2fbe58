"""The model card of a retriever or of a reranker: data, settings, scores, versions."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from modernbert.settings import to_mapping
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


def retrieval_card(
    kind: str, recipe: RetrievalRecipe, results: Mapping[str, Any], notes: Sequence[str]
) -> str:
    """The card as Markdown."""
    gives, own, other, pipeline = _USES[kind]
    settings = {**to_mapping(recipe.data), **to_mapping(recipe.training)}
    scores = results["dev"]
    packages = {name: version(name) for name in ("modernbert", "torch", "tokenizers")}
    return "\n".join(
        [
            "---",
            "library_name: sentence-transformers",
            f"pipeline_tag: {pipeline}",
            "tags: [modernbert]",
            "---",
            "",
            f"# A ModernBERT that gives {gives}",
            "",
            f"Trained from `{recipe.model}` by `modernbert finetune {kind}`. It is loaded by "
            f"`modernbert.{own}.from_pretrained` and by `sentence_transformers.{other}`.",
            "",
            "## Data",
            "",
            *(f"- {note}" for note in notes),
            "",
            "## Scores on the held-out data",
            "",
            *(_table("metric", {name: f"{value:.4f}" for name, value in scores.items()})),
            "",
            "## Settings",
            "",
            *_table("setting", settings),
            "",
            "## Versions",
            "",
            *_table("package", packages),
            "",
        ]
    )


def _table(name: str, rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return ["None."]
    return [f"| {name} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
