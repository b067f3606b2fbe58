"""Twins of published models, each written once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.published.twins import TWINS, Twin, write_twin

TEXTS = ["The capital of France is Paris.", "naïve café 東京 שלום 😀, it's 1,000.5!", "a"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def twin_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`twin_folder(name)`: the folder of a twin, as it would be published."""
    pytest.importorskip("sentence_transformers")
    sources = sorted((ROOT / "src" / "modernbert").glob("*.py"))[:8]
    texts = [*(path.read_text(encoding="utf-8") for path in sources), *TEXTS] * 2
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("twin")
            try:
                write_twin(TWINS[name], made[name], texts)
            except KeyError as error:
                if error.args != ("original_max_position_embeddings",):
                    raise
                pytest.skip("this version of transformers has no YaRN by kinds of layers")
        return made[name]

    return folder


@pytest.fixture(params=TWINS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def twin(name: str) -> Twin:
    return TWINS[name]


@pytest.fixture
def folder(name: str, twin_folder: Callable[[str], Path]) -> Path:
    return twin_folder(name)
