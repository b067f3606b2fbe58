"""Claim: a killed verb that is run again ends with what one that was never killed ends with.

A verb runs in a child, which is killed by SIGKILL right before one of its changes to the disk:
before a file is opened for writing, renamed, cut, linked or removed, before a folder is made,
removed or changes places with another, and before a sync. One run counts the changes; then each of
them is a place to kill at. After a kill the same command runs again until it ends well, and what it
leaves is compared.

Ctrl-C and SIGTERM are sent in the same way, once or several times. A verb that they stop also has
to say so in one line and to leave with the exit code of the documents.
"""

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHANGES = frozenset(
    (
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
    )
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALREADY_THERE = 2
_MOST_STARTS = 4
_STOPPED = {signal.SIGINT: (0, 130), signal.SIGTERM: (0, 143, -signal.SIGTERM)}
_SECONDS_TAKEN = re.compile(rb'"seconds": [0-9.e+-]+')


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command that writes.

    Attributes:
        name: What the result calls it.
        arguments: Of the command line; they are relative to the folder of a trial.
        outputs: What it leaves.
        prepare: Puts its inputs into the folder of a trial.
        ignored: Names of files that may differ from run to run, such as those that tell the time.
        only_random: Kill at random times alone, as the work is done in other processes.
        set_up: Called in each child before the command, in the folder of the trial.
        found: What counts of the outputs, where their bytes may differ.
    """

    name: str
    arguments: Sequence[str]
    outputs: Sequence[str]
    prepare: Callable[[Path], None]
    ignored: frozenset[str] = frozenset()
    only_random: bool = False
    set_up: Callable[[], None] = lambda: None
    found: Callable[[Path], str] | None = None


@dataclass
class Outcome:
    """How many kills there were, and after which of them something was lost.

    Attributes:
        places: How many changes to the disk the verb makes.
        every: 1 where all of them were tried, 2 for every second one, and so on.
        chosen: Kills right before one of them.
        random: Kills at random times.
    """

    places: int = 0
    every: int = 1
    chosen: int = 0
    random: int = 0
    faults: list[str] = field(default_factory=list)


class Killer:
    """Counts the changes that this process makes below a folder, and kills it before one of them.

    Args:
        home: The folder.
        kill_at: The number of the change, from 1; 0 to count alone.
        signals: What is sent before that change and those that follow.
    """

    def __init__(
        self, home: Path, kill_at: int = 0, signals: Sequence[int] = (signal.SIGKILL,)
    ) -> None:
        self.home, self.kill_at, self.count = str(home), kill_at, 0
        self.signals = list(signals)
        self.places: list[str] = []

    def install(self) -> None:
        """Begin to count; it cannot be taken away, so a child does it."""
        os.fsync = self._counting(os.fsync, "sync")
        sys.addaudithook(self._hook)

    def _counting(self, function: Any, name: str) -> Any:
        def counted(*arguments: Any) -> Any:
            self._change(name)
            return function(*arguments)

        return counted

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_change = event in _CHANGES
        if event == "open":
            path, _, flags = arguments
            is_change = isinstance(path, str | bytes | os.PathLike) and bool(flags & _WRITES)
        if event == "ctypes.dlsym" and "rename" in str(arguments[1]):
            self._change("exchange")
        elif is_change and self._is_below(arguments[0]):
            place = arguments[0]  # a path, or the descriptor of an open file
            name = str(place) if isinstance(place, int) else Path(os.fsdecode(place)).name
            self._change(f"{event} {name}")

    def _is_below(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # an open file
        return os.path.abspath(os.fsdecode(path)).startswith(self.home)  # noqa: PTH100

    def _change(self, place: str) -> None:
        self.count += 1
        self.places.append(place)
        if self.kill_at and self.count >= self.kill_at and self.signals:
            os.kill(os.getpid(), self.signals.pop(0))


def draw_nothing() -> None:
    """Leave charts and the measure of this machine out, which cost far more than the kills."""
    from matplotlib.figure import Figure

    from modernbert.report import charts
    from modernbert.training import log

    def write(_: Any, file: Any, **__: Any) -> None:
        file.write(b"a picture")

    charts.Chart._svg = lambda _: "<svg></svg>"  # type: ignore[method-assign]
    Figure.savefig = write  # type: ignore[method-assign]
    log._SECONDS = 0.0


def run_child(
    home: Path,
    arguments: Sequence[str],
    *,
    kill_at: int = 0,
    seconds: float = 0,
    signals: Sequence[int] = (signal.SIGKILL,),
    set_up: Callable[[], None] = lambda: None,
) -> Any:
    """Run a command in a forked child.

    Args:
        home: Where it runs.
        arguments: Of the command line.
        kill_at: Before which change it is killed; 0 for none.
        seconds: After how long it is killed; 0 for never.
        signals: What it is sent; after a time, those that follow come a moment later each, and
            all but SIGKILL go to its processes too, as Ctrl-C does.
        set_up: Called in the child before the command.

    Returns:
        The exit code, negative for a signal; what it said on stderr; and its changes, or nothing
        where it was killed.
    """
    said, counted = home.parent / "said", home.parent / "counted"
    counted.unlink(missing_ok=True)
    said.write_bytes(b"")
    has_begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        _run(home, arguments, Killer(home, kill_at, signals), said, counted, set_up, begin)
    os.close(begin)
    os.read(has_begun, 1)
    os.close(has_begun)
    status = _wait(child, seconds, signals)
    text = said.read_text(encoding="utf-8", errors="replace")
    places = counted.read_text(encoding="utf-8").splitlines() if counted.exists() else []
    return os.waitstatus_to_exitcode(status), text, places


def _run(
    home: Path,
    arguments: Sequence[str],
    killer: Killer,
    said: Path,
    counted: Path,
    set_up: Callable[[], None],
    begin: int,
) -> None:
    from modernbert.__main__ import run

    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has none
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)  # whatever stood there in the parent
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(home)
    draw_nothing()
    set_up()
    sys.argv = ["modernbert", *arguments]
    killer.install()
    code = 1
    try:
        os.write(begin, b"!")
        run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    killer.kill_at = 0
    counted.write_text("\n".join(killer.places), encoding="utf-8")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wait(child: int, seconds: float, signals: Sequence[int]) -> int:
    for number in signals if seconds else ():
        time.sleep(seconds)
        seconds = min(seconds, 0.1)
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.kill(child, number)
            else:
                os.killpg(child, number)
    return os.waitpid(child, 0)[1]


def digest(home: Path, verb: Verb) -> dict[str, str]:
    """The hashes of all that a verb left but the seconds that it took, by path."""
    if verb.found is not None:
        return {verb.outputs[0]: verb.found(home)}
    found: dict[str, str] = {}
    for name in verb.outputs:
        place = home / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.name not in verb.ignored:
                content = _SECONDS_TAKEN.sub(b"", path.read_bytes())
                found[str(path.relative_to(home))] = hashlib.sha256(content).hexdigest()
    return found


def _wrong_ending(code: int, said: str, signals: Sequence[int]) -> str:
    """What is wrong with how a verb ended that was asked to stop; nothing after a kill."""
    first = signals[0]
    if first == signal.SIGKILL or (code == -signal.SIGKILL and signal.SIGKILL in signals):
        return ""
    if code not in _STOPPED[first]:  # type: ignore[index]
        return f"ended with {code}"
    if "Traceback" in said or "Error" in said:
        return "a traceback"
    stopped = [line for line in said.splitlines() if line.startswith("stopped")]
    return f"{len(stopped)} lines say that it is stopped" if code > 0 and len(stopped) != 1 else ""


def leftovers(home: Path) -> list[str]:
    """What bears a temporary name at the end."""
    found = (str(path.relative_to(home)) for path in home.rglob("*"))
    return [name for name in found if ".partial-" in name or ".unfinished" in name]


def run_verb(
    verb: Verb,
    home: Path,
    *,
    most_places: int,
    random_kills: int,
    seed: int,
    signals: Sequence[int] = (signal.SIGKILL,),
) -> Outcome:
    """Kill one verb at its places, and at random times.

    Args:
        verb: The verb.
        home: A folder that is not there yet, for the trials.
        most_places: The most places that are tried: all, every second one, and so on.
        random_kills: How many kills at random times follow.
        seed: Of the choice.
        signals: What it is killed with.
    """
    draw = random.Random(seed)
    _import_all(verb, _fresh(verb, home))
    began = time.monotonic()
    code, said, places = run_child(_fresh(verb, home), verb.arguments, set_up=verb.set_up)
    seconds = time.monotonic() - began
    if code != 0:
        return Outcome(faults=[f"{verb.name}: ended with {code} without a kill: {said[-400:]}"])
    expected, outcome = digest(home, verb), Outcome(places=len(places))
    outcome.every = max(1, -(-len(places) // most_places))
    first = draw.randint(1, outcome.every)
    for number in () if verb.only_random else range(first, len(places) + 1, outcome.every):
        where = f"{verb.name} killed before {number} ({places[number - 1]})"
        kill = {"kill_at": number, "signals": signals}
        _trial(verb, _fresh(verb, home), expected, outcome, where, **kill)
        outcome.chosen += 1
    for _ in range(random_kills):
        after = draw.uniform(0.01, seconds)
        where = f"{verb.name} killed after {after:.2f} s"
        kill = {"seconds": after, "signals": signals}
        _trial(verb, _fresh(verb, home), expected, outcome, where, **kill)
        outcome.random += 1
    return outcome


def _import_all(verb: Verb, home: Path) -> None:
    """Run the verb once in this process, so that its children need not import what it needs."""
    from modernbert.cli import main

    before = Path.cwd()
    os.chdir(home)
    verb.set_up()
    try:
        with (
            contextlib.suppress(SystemExit),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            main(verb.arguments)
    finally:
        os.chdir(before)


def _fresh(verb: Verb, home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    verb.prepare(home)
    return home


def _trial(
    verb: Verb,
    home: Path,
    expected: Mapping[str, str],
    outcome: Outcome,
    where: str,
    **kill: Any,
) -> None:
    """Kill once, run again until it ends well, and compare."""
    code, said, _ = run_child(home, verb.arguments, **kill, set_up=verb.set_up)
    if wrong := _wrong_ending(code, said, kill["signals"]):
        outcome.faults.append(f"{where}: {wrong}: {said.strip()[-300:]}")
        return
    for _ in range(_MOST_STARTS):
        if code == 0:
            break
        code, said, _ = run_child(home, verb.arguments, set_up=verb.set_up)
        if code == _ALREADY_THERE and "already" in said:  # it had ended before it was killed
            code = 0
    if code != 0:
        outcome.faults.append(f"{where}: ended with {code}: {said.strip()[-300:]}")
        return
    got = digest(home, verb)
    if got != expected:
        different = sorted(name for name, _ in set(got.items()) ^ set(expected.items()))
        outcome.faults.append(f"{where}: differs in {', '.join(different[:4])}")
    elif left := leftovers(home):
        outcome.faults.append(f"{where}: leaves {', '.join(left[:4])}")
    elif "Traceback" in said:
        outcome.faults.append(f"{where}: a traceback: {said[-300:]}")
