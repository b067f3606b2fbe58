"""Examples of a pretrained model: masked tokens as they stand in held-out text."""

import json
from pathlib import Path

from tests.tasks.pretraining.small import World

from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe


def test_a_run_ends_with_examples_on_its_page(tmp_path: Path, world: World) -> None:
    recipe: PretrainingRecipe = world.phased(tmp_path / "mine")
    assert pretrain(recipe).status == "finished"
    examples = json.loads((recipe.output / "examples.json").read_text(encoding="utf-8"))
    assert 1 < len(examples) <= 16
    for each in examples:
        assert each["expected"] and each["before"] + each["after"]
        scores = [score for _, score in each["predicted"]]
        assert scores == sorted(scores, reverse=True) and 0 < scores[0] <= 1
    page = (recipe.output / "report.html").read_text(encoding="utf-8")
    for part in ("Examples", "What next", "<span>serve</span>", "Model card", "<mark>"):
        assert part in page
