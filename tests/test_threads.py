"""How threads wait, and what the package imports for it; each case has a process of its own."""

import os
import subprocess
import sys

import pytest

_SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"


def _run(code: str, **environment: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.strip()


def test_threads_wait_briefly_without_being_told() -> None:
    assert _run(f"import modernbert; {_SHOW}") == "1000"


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_environment_says_is_kept(name: str) -> None:
    code = f"import modernbert, os; print(os.environ[{name!r}], 'GOMP_SPINCOUNT' in os.environ)"
    assert _run(code, **{name: "7"}) == f"7 {name == 'GOMP_SPINCOUNT'}"


def test_nothing_is_set_after_torch_was_imported() -> None:
    assert _run(f"import sys; sys.modules['torch'] = sys; import modernbert; {_SHOW}") == "None"


def test_the_package_itself_imports_next_to_nothing() -> None:
    """Ctrl-C is answered with a traceback until the command line handles it."""
    slow = ["multiprocessing", "json", "numpy", "torch"]
    code = "import sys; before = set(sys.modules); import modernbert, modernbert.__main__; "
    code += f"print([name for name in {slow} if name in set(sys.modules) - before])"
    assert _run(code) == "[]"
