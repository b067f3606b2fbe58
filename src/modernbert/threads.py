"""Threads of a process: how they wait, and computing in a child after a fork.

The package does both when it is imported, so this module imports next to nothing: until the command
line handles Ctrl-C, Python answers it with a traceback.
"""

import os
import sys

# OpenMP's threads stay behind when a process forks. A child that asks for them, as torch and the C
# kernels do at every product, would wait for ever: servers that load a model first and fork their
# workers then (`gunicorn --preload`) hang so. With one thread nobody waits.


def _compute_with_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def compute_in_children() -> None:
    """Let forked children compute, each with one thread, whatever their parent did before."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_compute_with_one_thread)


_WAIT_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_TURNS = "1000"  # some 20 microseconds


def wait_briefly() -> None:
    """Let OpenMP threads that wait for others sleep after some microseconds.

    By default it turns in a loop for milliseconds. Where other programs want the cores too, the
    thread that it waits for is not running meanwhile: two threads took 16 times the time of one.
    The runtime reads the setting when torch loads it, so nothing changes where torch was imported
    before this package, or where the environment has one of the settings already.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _WAIT_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = _TURNS
