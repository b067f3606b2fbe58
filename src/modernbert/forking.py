"""Computing after a fork: a child has none of its parent's threads, and must not wait for them."""

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
    """From now on, let each forked child compute, with one thread, whatever its parent did."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_compute_with_one_thread)
