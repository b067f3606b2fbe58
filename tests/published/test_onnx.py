"""ONNX files of twins compute what the twins do; one file for each graph that there is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.published.twins import TWINS

from modernbert.export.onnx_export import export_onnx
from modernbert.export.source import open_source

pytestmark = pytest.mark.filterwarnings("ignore")

GRAPHS = (
    "answerdotai/ModernBERT-base",
    "llm-semantic-router/mmbert-32k-yarn",
    "ibm-granite/granite-embedding-97m-multilingual-r2",
    "nomic-ai/modernbert-embed-base",
    "Alibaba-NLP/gte-reranker-modernbert-base",
    "KRLabsOrg/lettucedect-base-modernbert-en-v1",
    "a model that answers questions",
    "a classifier with labels that lag behind",
    "a decoder of its own without a bias",
)
"""Twins that differ in more than numbers; an export takes seconds."""


def graph_of(folder: Path) -> tuple[Any, ...]:
    """What the operators of a model's graph depend on."""
    model = open_source(folder).model
    config: Any = model.config
    same = {name: 2 for name in vars(config) if name.endswith(("_token_id", "theta"))}
    config = replace(config, **same, vocab_size=8, max_seqlen=8, window=8)
    settings = getattr(model, "settings", None)
    pooling = settings and (settings.pooling, settings.problem)
    return type(model), config, pooling


def test_each_graph_is_exported(twin_folder: Callable[[str], Path]) -> None:
    known = [graph_of(twin_folder(name)) for name in GRAPHS]
    assert [name for name in TWINS if graph_of(twin_folder(name)) not in known] == []


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_exported(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    report = export_onnx(folder, tmp_path / "onnx")
    assert report.largest_difference < 1e-4
