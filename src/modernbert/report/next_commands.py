"""What a person does next with a model that a run has made, as commands."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from modernbert.kinds import MODELS, ModelKind
from modernbert.report.page import Html, commands, section

# What the verbs that use a model are given after its folder; `embed` takes its texts first.
_INPUTS = {
    "fill-mask": "'A text with a [MASK].'",
    "answer": "--context article.txt 'A question?'",
    "rerank": "'A question' 'A text.' 'Another text.'",
}


def commands_of(kind: ModelKind, model: Path, *, pairs: bool = False) -> dict[str, str]:
    """Return what can be done with a model, with the command of each.

    >>> list(commands_of("tagger", Path("runs/names/model")))
    ['use it', 'serve it', 'export it']

    Args:
        kind: The kind of the model.
        model: The model's folder, as the user calls it.
        pairs: Whether it takes pairs of texts, which `classify` reads from a file.
    """
    folder = shlex.quote(str(model))
    verb = MODELS[kind].used_by
    inputs = _INPUTS.get(verb, "--input pairs.csv" if pairs else "'A text.'")
    found = {"use it": f"modernbert {verb} {folder} {inputs}"}
    if verb == "embed":
        found = {"use it": f"modernbert embed texts.jsonl {folder} --output texts.index"}
    if kind == "masked_lm":
        found["fine-tune it"] = (
            f"modernbert finetune classify --model {folder} --train train.csv --dev 10%"
        )
    onnx = shlex.quote(str(model.parent / "onnx"))
    return {
        **found,
        "serve it": f"modernbert serve {folder}",
        "export it": f"modernbert export onnx {folder} --output {onnx}",
    }


def go_on(lines: Mapping[str, str]) -> Html:
    """Make the part of a page with these commands; empty without any."""
    note = "One click on a command selects it."
    return section("What next", commands(lines), note=note) if lines else Html("")
