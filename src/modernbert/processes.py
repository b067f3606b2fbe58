"""Processes: a pool of workers, and what the machine has for them.

Each worker has a pipe of its own and shares no lock or queue with the others, so a worker that is
killed holds up none of them. Each also watches its parent, so none outlives it. A worker is asked
to end by SIGTERM: work that catches the signal can save what it has before it ends.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from modernbert.errors import RunError

W = TypeVar("W")
M = TypeVar("M")

# Makes, in the worker, the function that does the work and reports messages on the way.
MakeWorker = Callable[[], Callable[[W, Callable[[M], None]], None]]

_POLL_SECONDS = 0.2
_LAST_SECONDS = 3.0  # of a worker after its parent; less than `files.PATIENCE_SECONDS`


@dataclass(frozen=True)
class _Done:
    pass


@dataclass(frozen=True)
class _Failed:
    error: BaseException


def num_cores() -> int:
    """Return how many cores this process may use, as far as the system says."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return how much memory this machine or container has."""
    found = [1 << 62]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max" is no number
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C, which only this process handles, while a worker starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessPool(Generic[W, M]):
    """A pool of processes for pieces of work.

    Args:
        num_workers: The number of processes.
        make_worker: Called in each process; it can be pickled.
        threads: The number of threads that each worker's tokenizer may use.
    """

    def __init__(self, num_workers: int, make_worker: MakeWorker[W, M], *, threads: int) -> None:
        self._num_workers = num_workers
        self._make_worker = make_worker
        self._threads = threads
        self._workers: dict[Connection, BaseProcess] = {}

    def run(self, works: Iterable[W], stop: Callable[[], bool] = lambda: False) -> Iterator[M]:
        """Do all the work, in no particular order, and yield what the workers report.

        Args:
            works: The pieces of work, each of which can be pickled.
            stop: Asked several times a second; when true, the workers are asked to end.

        Raises:
            RunError: A worker died.
            Exception: Whatever the work raised; the other workers are asked to end.
        """
        waiting = iter(works)
        try:
            for _ in range(self._num_workers):
                self._hand_out(self._start(), waiting)
            while self._workers and not stop():
                for connection in wait(list(self._workers), _POLL_SECONDS):
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
        with _interrupts_held():
            process.start()
        theirs.close()
        self._workers[ours] = process
        return ours

    def _hand_out(self, connection: Connection, waiting: Iterator[W]) -> None:
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
            "run the same command again to continue, perhaps with fewer workers"
        )

    def _stop(self) -> None:
        """Ask all workers to end, and read their reports until then, so that none is blocked."""
        for process in self._workers.values():
            process.terminate()
        while self._workers:
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                try:
                    connection.recv()
                except (EOFError, OSError):
                    self._workers.pop(connection).join()
                    connection.close()


def _serve(connection: Connection, make_worker: MakeWorker[W, M], threads: int) -> None:
    """Run a worker until it is asked to end."""
    os.setpgrp()  # a Ctrl-C is for the parent, which passes it on once
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
        _send_failure(connection, error)


def _send_failure(connection: Connection, error: BaseException) -> None:
    try:
        connection.send(_Failed(_picklable(error)))
    except OSError:
        return  # the parent is gone


def _end_with_parent() -> None:
    """Have this process end when its parent dies.

    What it writes is whole after a kill, and it holds locks that the next start waits for.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_SECONDS)
        os._exit(1)


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
