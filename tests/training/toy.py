"""A toy to train: a tied module with dropout, and a task that knows its data from a position.

Run as a program, `python toy.py RUN_FOLDER one|three|OPTIMIZER DEATH...`, it trains in one process
after another on the same folder, each of which is killed by SIGKILL, and then once more to the end.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what every optimizer imports on first use; before the forks
from torch import Tensor, nn

from modernbert.files import TEMPORARY_PREFIX
from modernbert.training import checkpoint
from modernbert.training.trainer import Phase, Progress, Step, Trainer, TrainingSettings
from modernbert.training.training_settings import ScheduleSettings

VOCABULARY, WIDTH = 16, 8
TOKENS_A_STEP = 32


class ToyModule(nn.Module):
    """Predicts a token's successor; the output matrix is the embedding."""

    def __init__(self, seed: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.dense = nn.Linear(WIDTH, WIDTH)
        self.dense.weight = nn.Parameter(torch.randn(WIDTH, WIDTH).T)  # not contiguous
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)
        self.decoder.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor(0.5))
        self.matrices = {"dense": 2}  # what Muon takes

    def forward(self, token_ids: Tensor) -> Tensor:
        hidden = self.dropout(self.dense(self.embedding(token_ids))) * self.scale
        return self.decoder(self.norm(hidden))


@dataclass
class ToyTask:
    """Steps of `TOKENS_A_STEP` tokens, cut into micro-batches; every odd token is a target."""

    num_micro_batches: int = 2
    num_without_targets: int = 0
    poisoned_steps: Collection[int] = ()
    spiking_steps: Collection[int] = ()
    step_seconds: float = 0.0
    evaluations: list[int] = field(default_factory=list)
    is_closed: bool = False

    def steps(self, progress: Progress) -> Iterator[Step]:
        try:
            while True:
                step = self._step(progress)
                progress = step.progress
                yield step
        finally:
            self.is_closed = True

    def _step(self, before: Progress) -> Step:
        generator = np.random.default_rng(before.position)
        token_ids = torch.from_numpy(generator.integers(0, VOCABULARY, TOKENS_A_STEP))
        targets = (token_ids * 5 + 3) % VOCABULARY
        chosen = token_ids % 2 == 1
        parts = [
            (ids, wanted[picks], picks)
            for ids, wanted, picks in zip(
                *(x.chunk(self.num_micro_batches) for x in (token_ids, targets, chosen)),
                strict=True,
            )
        ]
        none = torch.zeros(4, dtype=torch.bool)
        empty = (token_ids[:4], targets[:0], none)
        return Step(
            micro_batches=[*parts, *[empty] * self.num_without_targets],
            progress=replace(
                before,
                step=before.step + 1,
                tokens=before.tokens + TOKENS_A_STEP,
                position=before.position + 1,
            ),
            num_targets=int(chosen.sum()),
            num_tokens=TOKENS_A_STEP,
            fill=1.0,
        )

    def loss(self, module: nn.Module, micro_batch: Any, *, step: int) -> Tensor:
        time.sleep(self.step_seconds / self.num_micro_batches)
        token_ids, targets, chosen = micro_batch
        if not len(targets):
            return torch.zeros(())
        logits = module(token_ids)[chosen].float()
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
        if step in self.spiking_steps:
            loss = loss * 10
        return loss * float("nan") if step in self.poisoned_steps else loss

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        assert not module.training and not torch.is_grad_enabled()
        torch.rand(3)
        self.evaluations.append(1)
        token_ids = torch.arange(VOCABULARY)
        loss = nn.functional.cross_entropy(module(token_ids).float(), (token_ids * 5 + 3) % 16)
        return {"held_out_loss": float(loss)}


def settings(num_steps: int = 30, **changes: Any) -> TrainingSettings:
    total_tokens = num_steps * TOKENS_A_STEP
    schedule = ScheduleSettings(
        peak_learning_rate=0.02,
        warmup_tokens=total_tokens // 10,
        decay="1-sqrt",
        decay_tokens=total_tokens // 3,
    )
    values: dict[str, Any] = {
        "weight_decay": 0.01,
        "checkpoint_every_steps": 4,
        "evaluate_every_steps": 5,
        "precision": "float32",
    }
    return TrainingSettings(total_tokens=total_tokens, schedule=schedule, **{**values, **changes})


def phase(
    task: ToyTask | None = None,
    settings_: TrainingSettings | None = None,
    name: str = "toy",
    **options: Any,
) -> Phase:
    return Phase(name=name, task=task or ToyTask(), settings=settings_ or settings(), **options)


def phases(step_seconds: float = 0.0) -> list[Phase]:
    """Three, of which the last goes back to the end of the first."""

    def scaled(by: float) -> Any:
        def begin(module: nn.Module) -> None:
            module.scale.fill_(by)

        return begin

    def one(name: str, num_steps: int, scale: float, **options: Any) -> Phase:
        task = ToyTask(step_seconds=step_seconds)
        return phase(task, settings(num_steps), name, begin=scaled(scale), **options)

    return [
        one("first", 10, 0.5),
        one("second", 9, 0.7, goes_on=True),
        one("third", 11, 0.6, start_from="first"),
    ]


def weights(module: nn.Module) -> bytes:
    return b"".join(p.detach().contiguous().numpy().tobytes() for p in module.parameters())


def train(folder: Path, kind_of_run: str = "one", death: str = "") -> int:
    """Start a run of one phase, under any optimizer, or of three once.

    `death` is one of

    `step:N`     after the record of step N
    `phase:N`    when a phase has begun after step N, before its first evaluation
    `evaluation:N`  after an evaluation at step N
    `end:N`      when the end of the phase that ends with step N is to be kept
    `save:N`     in the middle of the save of step N, with its files half there
    `kept:N`     when that save is whole, before old checkpoints go and the log has it
    `after:S`    S seconds after the start, wherever that is
    """
    module, observers, step_seconds = ToyModule(), [], 0.0
    kind, _, number = death.partition(":")
    if kind in ("step", "phase", "evaluation"):
        observers.append(
            lambda record: _die_if(record["kind"] == kind and record["step"] == int(number))
        )
    elif kind in ("save", "kept"):
        name = {"save": "_write_manifest", "kept": "keep_newest"}[kind]
        _die_in(name, checkpoint.folder_of(folder, int(number)))
    elif kind == "after":
        step_seconds = 0.05
        threading.Timer(float(number), _die_if, [True]).start()
    optimizer = (
        {} if kind_of_run in ("one", "three") else {"optimizer": kind_of_run, "embedding_rate": 2.0}
    )
    task = ToyTask(step_seconds=step_seconds)
    whole: Sequence[Phase] = [phase(task, settings(**optimizer))]
    if kind_of_run == "three":
        whole = phases(step_seconds)
    trainer = Trainer(module, whole, folder, observers=observers)
    if kind == "end":
        keep = trainer.state.keep_end
        trainer.state.keep_end = lambda: (_die_if(trainer.progress.step == int(number)), keep())
    result = trainer.run()
    (folder / "weights").write_bytes(weights(module))
    return result.exit_code


def _die_if(condition: bool) -> None:
    if condition:
        os.kill(os.getpid(), signal.SIGKILL)


def _die_in(function_name: str, folder: Path) -> None:
    """Make a function of the checkpoint module deadly while `folder` is being written."""
    function = getattr(checkpoint, function_name)

    def die_or_call(*arguments: Any) -> None:
        temporary = folder.with_name(TEMPORARY_PREFIX + folder.name)
        _die_if((temporary if function_name == "_write_manifest" else folder).exists())
        function(*arguments)

    setattr(checkpoint, function_name, die_or_call)


def main(folder: str, kind_of_run: str, *deaths: str) -> None:
    torch.set_num_threads(1)
    for death in [*deaths, ""]:
        process = os.fork()  # a process of its own that need not import torch again
        if process == 0:
            os._exit(train(Path(folder), kind_of_run, death))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
