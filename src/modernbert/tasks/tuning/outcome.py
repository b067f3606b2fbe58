"""How a run of a fine-tuning has ended, as its folder tells it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from modernbert.errors import RunError
from modernbert.files import write_whole

OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    name: of the run.
    best_step: after how many steps the weights were taken.
    seconds: of training and evaluating, without pauses.
    dev, test: scores of those weights; empty without such rows.
    """

    name: str
    seed: int
    learning_rate: float
    weight_decay: float
    epochs: int
    steps: int
    tokens: int
    best_step: int
    seconds: float
    dev: Mapping[str, float]
    test: Mapping[str, float]


class Interrupted(Exception):
    """A signal has stopped a run; all of it is saved.

    exit_code: what a shell expects then.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"stopped by signal {exit_code - 128}")
        self.exit_code = exit_code


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of a run that is finished; None before.

    Raises:
        RunError: a file that is no outcome.
    """
    path = folder / OUTCOME_FILE
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not the outcome of a run: {error}; delete it") from None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write what `read_outcome` reads."""
    write_whole(folder / OUTCOME_FILE, json.dumps(asdict(outcome), indent=1).encode() + b"\n")
