"""A program that pretrains the small recipe, kills each process, and then runs it to the end.

`python killed_runs.py WORLD OUTPUT one|three DEATH...` trains a recipe of one phase or three in
one process after another. Each is killed by SIGKILL at its death, which is one of

    `step:N`     after the record of step N, while the data of later steps is being made
    `phase:N`    when a phase has begun after step N, before its first evaluation
    `save:N`     in the middle of the save of step N, with its files half there
    `kept:N`     when that save is whole, before old checkpoints go and the log has it
    `model:N`    while the model after N steps is written, before its tokenizer
    `after:S`    S seconds after the start, wherever that is
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.utils.tensorboard  # here, so that the processes that are forked need not
from tests.tasks.pretraining.small import World

from modernbert.files import TEMPORARY_PREFIX
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import checkpoint


def run(world: World, output: Path, kind_of_run: str, death: str) -> int:
    """One start of the command."""
    kind, _, number = death.partition(":")
    observers: list[Callable[[dict[str, Any]], None]] = []
    steps = [0]
    observers.append(lambda record: steps.append(record["step"]))
    if kind in ("step", "phase"):
        observers.append(lambda r: _die_if(r["kind"] == kind and r["step"] == int(number)))
    elif kind == "save":
        folder = checkpoint.folder_of(output, int(number))
        partial = folder.with_name(TEMPORARY_PREFIX + folder.name)
        _die_in(checkpoint, "_write_manifest", partial.exists)
    elif kind == "kept":
        _die_in(checkpoint, "keep_newest", checkpoint.folder_of(output, int(number)).exists)
    elif kind == "model":
        _die_in(Tokenizer, "save_pretrained", lambda: steps[-1] == int(number))
    elif kind == "after":
        observers.append(lambda _: time.sleep(0.06))
        threading.Timer(float(number), _die_if, [True]).start()
    recipe = world.phased(output) if kind_of_run == "three" else world.recipe(output)
    return pretrain(recipe, observers).exit_code


def _die_if(condition: bool) -> None:
    if condition:
        os.kill(os.getpid(), signal.SIGKILL)


def _die_in(owner: Any, name: str, condition: Callable[[], bool]) -> None:
    """Make a function deadly once the condition holds."""
    function = getattr(owner, name)

    def die_or_call(*arguments: Any, **options: Any) -> Any:
        _die_if(condition())
        return function(*arguments, **options)

    setattr(owner, name, die_or_call)


def main(world: str, output: str, kind_of_run: str, *deaths: str) -> None:
    torch.set_num_threads(1)
    for death in [*deaths, ""]:
        process = os.fork()
        if process == 0:
            os._exit(run(World(Path(world)), Path(output), kind_of_run, death))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
