"""What a pretraining's log tells for its report."""

from pathlib import Path

import pytest
import torch
from tests.tasks.pretraining.small import World

from modernbert.data.packing import Bin, Stretch
from modernbert.data.shards import ShardFolder
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.report.history import RunHistory
from modernbert.tasks.pretraining.card import step_flops
from modernbert.tasks.pretraining.pretrain import pretrain


def test_a_step_is_a_forward_and_a_backward_of_each_sequence(world: World) -> None:
    folder = ShardFolder.open(world.sources[0])
    shard, config = folder.shards[0], EncoderConfig.preset("tiny")
    spans = (Stretch(shard, 0, 30), Stretch(shard, 30, 60), Stretch(shard, 60, 70))
    bins = [Bin(0, spans, folder.special_token_ids)]
    expected = sum(
        3 * length * flops_per_token(config, length, masked_share=0.3) for length in (32, 32, 12)
    )
    assert step_flops(config, bins, masked_share=0.3) == pytest.approx(expected)


def test_the_report_of_a_run_has_its_figures(world: World, tmp_path: Path) -> None:
    pretrain(world.recipe(tmp_path / "run"))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for title in ("Loss", "Speed", "Arithmetic", "Memory", "Batch size", "Masked tokens"):
        assert f"<b>{title}</b>" in page
    assert "preset = &quot;tiny&quot;" in page and torch.__version__ in page
    assert "finished</p>" in page
    history = RunHistory.read(tmp_path / "run" / "metrics.jsonl")
    assert history.starts[0]["matmul_flops_per_second"] > 1e6
    assert (history.column("flops") > 1e6).all() and (history.column("memory_bytes") > 5e7).all()


def test_a_run_on_remote_shards_is_that_on_local_ones(world: World, tmp_path: Path) -> None:
    addresses = [{"shards": f"file://{folder}"} for folder in world.sources]
    changes = {"sources": addresses, "shard_cache": {"folder": str(tmp_path / "cache")}}
    pretrain(world.recipe(tmp_path / "remote", **changes))
    local = [{"shards": str(folder)} for folder in world.sources]
    pretrain(world.recipe(tmp_path / "local", sources=local))
    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("remote", "local")
    ]
    assert weights[0] == weights[1] and list((tmp_path / "cache").glob("*.data"))
