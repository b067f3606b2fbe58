"""The log of a run of three phases to which everything has happened."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUM_STEPS = 120
PHASES = {"pretraining": 80, "extension": 110, "decay": NUM_STEPS}
EVIL = "<script>alert(1)</script>"


def rows() -> Iterator[dict[str, Any]]:
    yield {
        "kind": "start",
        "step": 0,
        "tokens": 0,
        "total_tokens": 1000 * NUM_STEPS + 500,
        "matmul_flops_per_second": 4e10,
        "about": {"model": EVIL, "parameters": 149_655_232, "versions": {"torch": "2.13.0"}},
    }
    for step in range(1, NUM_STEPS + 1):
        phase = next(name for name, last in PHASES.items() if step <= last)
        place = {"step": step, "tokens": 1000 * step, "phase": phase}
        yield {
            "kind": "step",
            **place,
            "loss": 9.0 - 0.05 * step,
            "learning_rate": 1e-3,
            "gradient_norm": 0.5,
            "tokens_per_second": 500.0,
            "fill": 0.99,
            "data_wait_seconds": 0.02,
            "seconds": 2.0,
            "num_tokens": 1000,
            "num_targets": 300 if phase != "decay" else 150,
            "flops": 2e10,
            "memory_bytes": 2_500_000_000,
        }
        if step % 10 == 0:
            loss = 8.0 - 0.05 * step
            yield {"kind": "evaluation", **place, "held_out_loss": loss, "held_out_accuracy": 0.25}
            yield {"kind": "checkpoint", **place, "path": "checkpoints/x"}
    yield {"kind": "skipped", "step": 61, "reason": "the loss is nan"}
    yield {"kind": "spike", "step": 70, "tokens": 70_000, "message": "4.0 where 2.0 is usual"}
    yield {"kind": "warning", "step": 120, "message": f"{EVIL} set aside"}
    parts = [{"step": 110, "loss": 2.0}, {"step": 120, "loss": 2.0}]
    yield {"kind": "averaged", "step": 120, "parts": parts}


def write_run(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    log = folder / "metrics.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "recipe.toml").write_text(f'output = "{EVIL}"\n')
    return log
