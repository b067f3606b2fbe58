"""A fresh Python in which some modules cannot be found, as on a machine that lacks them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PRELUDE = """
import contextlib, io, json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
for name in HIDDEN:
    sys.modules.pop(name, None)

def command(*arguments):
    "The exit code, the output and the messages of `modernbert`."
    from modernbert.cli import main
    told, shown, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
        try:
            main([str(each) for each in arguments])
        except SystemExit as left:
            code = left.code
    return [code, shown.getvalue(), told.getvalue()]
"""
_SOURCE = Path(__file__).resolve().parents[1] / "src"


def result_without(modules: Sequence[str], program: str, *arguments: object) -> Any:
    """Run a program in which these modules cannot be imported; give what it prints, as JSON.

    The program may call `command` to run `modernbert`.
    """
    path = os.pathsep.join([str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-c", f"HIDDEN = {list(modules)!r}\n{_PRELUDE}\n{program}"]
        + [str(each) for each in arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
