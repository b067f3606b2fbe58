"""The tutorials run, in a small form, and their pages show what they printed."""

from pathlib import Path

import pytest

from docs import tutorial_pages

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {"accelerate": "peft", "serve": "openai"}


@pytest.mark.parametrize("name", tutorial_pages.NAMES)
def test_a_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with a number or a picture."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.setenv("MODERNBERT_TUTORIAL", "small")
    monkeypatch.setenv("MODERNBERT_START", str(ROOT / "benchmarks" / "finetune" / "start"))
    last = tutorial_pages.run(name, tmp_path)[-1]
    assert last["pictures"] or any(letter.isdigit() for letter in last["printed"])


@pytest.mark.parametrize("name", tutorial_pages.NAMES)
def test_a_page_shows_all_cells_and_what_they_printed(name: str) -> None:
    """Record a tutorial again after a change: `python -m docs.tutorial_pages NAME`."""
    page, kept = tutorial_pages.page(name), tutorial_pages.recorded(name)
    code = [cell for cell in tutorial_pages.cells(name) if cell.is_code]
    assert all(cell.text in page for cell in code)
    if kept is None:
        pytest.skip("has not been recorded")
    for _, output in zip(code, kept["cells"], strict=True):
        assert output["printed"].rstrip() in page
