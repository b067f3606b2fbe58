"""Groups of processes, as torchrun would start them, that call one function together.

They are forked from a server that has imported torch once, so a group starts at once.
"""

import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modernbert.errors import ModernBertError

PRELOADED = [
    "matplotlib.pyplot",
    "torch._dynamo",  # what every optimizer imports on first use
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "tests.processes",
    "tests.training.groups",
    "tests.tasks.pretraining.groups",
    "tests.tasks.tuning.groups",
]
_ERROR_CODE = 2


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one process came to its end.

    exit_code: negative for a signal.
    result: what the function gave, as JSON gives it back.
    error: class and message of the error that ended it, or empty.
    """

    exit_code: int
    result: Any = None
    error: str = ""


def run_together(
    function: Callable[..., Any], size: int, *arguments: Any, timeout_seconds: float = 60.0
) -> list[Ended]:
    """Call a function in `size` processes at once and wait for all of them.

    function: of a module that can be imported; its result must be JSON.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_call, args=(rank, size, port, Path(folder), function, arguments)
            )
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout_seconds)
            if process.is_alive():
                process.kill()
                process.join()
        return [_ended(process, Path(folder) / str(r)) for r, process in enumerate(processes)]


def results(ended: Sequence[Ended]) -> list[Any]:
    """What the function gave in each process; none may have failed."""
    assert [each.error for each in ended] == [""] * len(ended)
    assert [each.exit_code for each in ended] == [0] * len(ended)
    return [each.result for each in ended]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _call(
    rank: int,
    size: int,
    port: int,
    folder: Path,
    function: Callable[..., Any],
    arguments: Sequence[Any],
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        answer, code = {"result": function(*arguments)}, 0
    except ModernBertError as error:
        answer, code = {"error": f"{type(error).__name__}: {error}"}, _ERROR_CODE
    (folder / str(rank)).write_text(json.dumps(answer))
    sys.exit(code)


def _ended(process: Any, answer: Path) -> Ended:
    values = json.loads(answer.read_text()) if answer.exists() else {}
    return Ended(exit_code=process.exitcode, **values)
