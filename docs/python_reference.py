"""The reference of the Python interface: which public name stands on which page.

The texts are the docstrings, which mkdocstrings reads with the types of the signatures.
"""

from collections.abc import Iterator

import modernbert

# Pages in the order of the navigation, with the rooms of the package whose public names they hold.
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "using.md": ("Using models", "Models in use: from texts to results.", ("inference",)),
    "training.md": (
        "Training",
        "From a corpus to a model, and from rows to a model for a task.",
        ("api", "sklearn", "tasks", "training", "evaluation", "planning", "data", "report"),
    ),
    "models.md": (
        "Models and batches",
        "What models compute with: packed batches, encoders, heads and tokenizers.",
        ("batch", "model", "tokenizer"),
    ),
    "exchange.md": (
        "Other libraries and formats",
        "To and from transformers, the hub and other engines.",
        ("interop", "export", "hub", "serving"),
    ),
}


def room_of(name: str) -> str:
    """The room of a public name, such as `inference`."""
    return getattr(modernbert, name).__module__.split(".")[1]


def names_of(page: str) -> list[str]:
    """The public names on a page, in the order of its rooms."""
    rooms = PAGES[page][2]
    public = [name for name in modernbert.__all__ if name not in ("__version__", "ModernBertError")]
    found = [name for name in public if room_of(name) in rooms]
    return sorted(found, key=lambda name: (rooms.index(room_of(name)), name))


def pages() -> Iterator[tuple[str, str]]:
    """The names and texts of the pages."""
    for page, (title, summary, _) in PAGES.items():
        blocks = [f"::: modernbert.{name}" for name in names_of(page)]
        yield page, "\n\n".join([f"# {title}", summary, *blocks]) + "\n"
    options = "    options:\n      show_root_heading: false"
    yield "errors.md", f"# Errors\n\n::: modernbert.errors\n{options}\n"
