"""Worker processes that are handed one piece of work after another, and may die at any time.

Each worker has a pipe of its own and shares no lock or queue with the others, so that a worker
that is killed holds up none of them; and each watches its parent, so that none outlives it.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from modernbert.errors import RunError

Work = TypeVar("Work")
Message = TypeVar("Message")

# Makes, in the worker, what does the work and reports messages by the way.
MakeWorker = Callable[[], Callable[[Work, Callable[[Message], None]], None]]


@dataclass(frozen=True)
class _Done:
    pass


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class WorkPool(Generic[Work, Message]):
    """Processes for pieces of work; `make_worker` must be picklable.

    threads: how many threads the tokenizer of each worker may use.
    """

    def __init__(
        self, num_workers: int, make_worker: MakeWorker[Work, Message], *, threads: int
    ) -> None:
        self._num_workers = num_workers
        self._make_worker = make_worker
        self._threads = threads
        self._workers: dict[Connection, BaseProcess] = {}

    def run(self, works: Iterable[Work]) -> Iterator[Message]:
        """Do all the work, in no particular order; yields what the workers report.

        Raises:
            RunError: a worker died.
            Exception: whatever the work raised; the other workers are stopped.
        """
        waiting = iter(works)
        try:
            for _ in range(self._num_workers):
                self._hand_out(self._start(), waiting)
            while self._workers:
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    message = self._receive(connection)
                    if isinstance(message, _Failed):
                        raise message.error
                    if isinstance(message, _Done):
                        self._hand_out(connection, waiting)
                    else:
                        yield message
        finally:
            self._stop()

    def _start(self) -> Connection:
        # Never fork: the threads of the parent would leave locks behind in the child.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._make_worker, self._threads), daemon=True
        )
        process.start()
        theirs.close()
        self._workers[ours] = process
        return ours

    def _hand_out(self, connection: Connection, waiting: Iterator[Work]) -> None:
        work = next(waiting, None)
        if work is None:
            process = self._workers.pop(connection)
            connection.close()
            process.join()
            return
        try:
            connection.send(work)
        except BrokenPipeError:
            raise self._death(connection) from None

    def _receive(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death(connection) from None

    def _death(self, connection: Connection) -> RunError:
        process = self._workers[connection]
        process.join()
        code = process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return RunError(
            f"a worker process died ({cause}; the machine may have run out of memory); "
            "run the same command again to go on, perhaps with fewer workers"
        )

    def _stop(self) -> None:
        for process in self._workers.values():
            process.terminate()
        for connection, process in self._workers.items():
            connection.close()
            process.join()
        self._workers.clear()


def _serve(connection: Connection, make_worker: MakeWorker[Work, Message], threads: int) -> None:
    """The life of a worker."""
    # Ctrl-C reaches every process of the terminal; the parent alone decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Read by the Rust library of the tokenizer when it first runs in parallel.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    try:
        worker = make_worker()
        while True:
            try:
                work = connection.recv()
            except EOFError:
                return
            worker(work, connection.send)
            connection.send(_Done())
    except BrokenPipeError:
        return
    except BaseException as error:
        connection.send(_Failed(_picklable(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
