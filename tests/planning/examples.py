"""A phase and a machine that tests change."""

from dataclasses import replace
from typing import Any

from modernbert.model.config import EncoderConfig
from modernbert.planning.phase import CHIPS, Machine, Phase

PHASE = Phase(
    name="pretraining",
    config=EncoderConfig.preset("base"),
    total_tokens=1_000_000_000,
    max_seqlen=1_024,
    tokens_per_step=4_718_592,
    micro_batch_tokens=65_536,
    max_logits_bytes=1 << 29,
)


def phase(**changes: Any) -> Phase:
    return replace(PHASE, **changes)


def machine(kind: str = "h100", **changes: Any) -> Machine:
    return Machine(chip=CHIPS[kind], **{"share_of_peak": 0.25, **changes})
