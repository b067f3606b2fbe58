"""Work in progress for an output: results are kept whenever the process is stopped.

The folder `OUT.unfinished` belongs to one process at a time. It holds the results so far, a line
for each text, and `job.json`: what is computed with what, and how much of each file counts, with
its hash. When all is there, the output is made in that folder, `job.json` says that it is complete,
and its files are moved to their places, which may be addresses in object storage.

Of a job that several tasks share, each task has such a folder, `OUT.tasks/TASK-of-TASKS`. The
call that joins them checks that they are of one job, complete and as they were written.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from modernbert.cli.terminal import counted, tell
from modernbert.data.remote_files import (
    FetchSettings,
    address_of,
    fetch,
    list_remote,
    remove_remote,
    write_remote,
)
from modernbert.data.settings import ShareSettings
from modernbert.errors import InputError, RunError
from modernbert.files import finish_removal, locked, new_file, remove_folder, sync, write_whole
from modernbert.hashes import FileHash
from modernbert.json_files import parse_foreign, read_object
from modernbert.reading import cache_folder

if TYPE_CHECKING:
    from modernbert.inference.index_files import GrowingFile

_SECONDS_BETWEEN_SAVES = 1.0
_PIECE_BYTES = 1 << 22
_STOPPED = 130
_STATE_FILE = "job.json"
_ALONE = ShareSettings()


@dataclass(frozen=True, kw_only=True)
class State:
    """The content of `job.json`.

    Attributes:
        job: What is computed with what.
        texts, rows, id_bytes: How many texts, vectors and bytes of lines are kept.
        hashes: Of what is kept, by the name of the file.
        is_complete: Whether nothing is left to compute; of a job alone, whether the files of the
            output are all made, so that they only have to be moved.
    """

    job: Mapping[str, Any] = field(default_factory=dict)
    texts: int = 0
    rows: int = 0
    id_bytes: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = False


class Job:
    """The results so far; a context manager that locks their folder for this process.

    Args:
        output: The file that they become; a path, or an address in object storage.
        description: Everything that decides the results; a job goes on only where it is the same.
        share: Which share of the job this is.

    Raises:
        InputError: An output that is there already or of another kind, another job's folder, or one
            whose files are not as they were left.
        InUseError: Another process works on the same output.
    """

    lines_file = "lines.jsonl"

    def __init__(
        self, output: Path, description: Mapping[str, Any], *, share: ShareSettings = _ALONE
    ) -> None:
        self.address, self.share = address_of(output), share
        self.output = output if self.address is None else _staging(self.address)
        self.folder = self.output.with_name(f"{self.output.name}.unfinished")
        self._description = dict(description)
        if share.task is not None:
            self.folder = self._task_folder(share.task)
            description = {**description, "task": share.task, "tasks": share.tasks}
        self._open_files = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(self._held_folder())
            self._state = self._kept = self._taken_up(dict(description))
            stack.push(self._open_files)
            if not self.is_complete:
                self._open()
            self._stack = stack.pop_all()
        self._saved_at = time.monotonic()

    @property
    def num_done(self) -> int:
        """How many texts are done so far."""
        return self._kept.texts

    @property
    def num_saved(self) -> int:
        """How many texts are done and on the disk, for the next start."""
        return self._state.texts

    @property
    def told(self) -> str:
        """How much of the work is kept, for a message."""
        return counted(self.num_saved, "text")

    @property
    def num_vectors(self) -> int:
        """How many vectors there are so far."""
        return self._kept.rows

    @property
    def is_complete(self) -> bool:
        """Whether only moving the output to its place is left."""
        return self._state.is_complete

    def add(self, lines: Sequence[bytes]) -> None:
        """Add the lines of some texts; what was added a second ago or more is on the disk."""
        self._lines.append(b"".join(lines))
        self._note(len(lines))

    def _note(self, num_texts: int) -> None:
        """Count texts whose results are in the files."""
        self._kept = replace(
            self._kept,
            texts=self._kept.texts + num_texts,
            rows=self._num_rows,
            id_bytes=self._lines.num_bytes,
            hashes={each.path.name: each.sha256 for each in self._files},
        )
        if time.monotonic() - self._saved_at >= _SECONDS_BETWEEN_SAVES:
            self.save()

    @property
    def _num_rows(self) -> int:
        """How many vectors the files hold."""
        return 0

    def save(self) -> None:
        """Make everything that was added durable, so that a kill does not lose it."""
        if self._kept != self._state:
            for file in self._files:
                file.sync()
            self._write_state(self._kept)
        self._saved_at = time.monotonic()

    def join(self) -> int:
        """Join the results of all tasks in the order of the texts, after checking all of them.

        Returns:
            How many tasks there were.

        Raises:
            InputError: A share is missing, not complete, of another job, or not as it was written.
        """
        assert self.share.tasks is not None
        states = [self._checked_task(task) for task in range(self.share.tasks)]
        before = 0
        for task, state in enumerate(states):
            if not self.is_complete and self.num_done == before:  # not by a call that was stopped
                self._take(self._task_folder(task), state)
            before += state.texts
        return len(states)

    def _finish(self, make_output: Callable[[], None]) -> None:
        """Make the output of all that is kept; of one task's share, note that it is complete.

        Args:
            make_output: Makes what is not made yet of the output's files, all within the folder.

        Raises:
            InputError: There was no text.
        """
        if not self.is_complete:
            self.save()
            self._open_files.close()
            if self.share.task is None:
                if not self.num_done:
                    remove_folder(self.folder)
                    raise InputError(f"{self.output}: the input has no text; nothing was written")
                make_output()
            hashes = {name: FileHash.of(self.folder / name).sha256 for name in self._state.hashes}
            self._write_state(replace(self._state, is_complete=True, hashes=hashes))
        if self.share.task is not None:
            self._deliver_share()
            return
        self._move_output()
        remove_folder(self.folder)
        self._remove_shares()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is not None and self.folder.exists() and not self.is_complete:
                with suppress(OSError):  # the disk may be full
                    self.save()

    @property
    def _places(self) -> dict[Path, Path]:
        """Where the files of the output are made, and their places, in the order of moving them."""
        return {self.folder / "output.jsonl": self.output}

    def _open(self) -> None:
        """Open the files behind the results that count."""
        try:
            self._files = self._opened(self._state)
            for file in self._files if self._state.texts else ():
                if file.sha256 != self._state.hashes.get(file.path.name):
                    raise InputError(f"{file.path}: was changed since it was written")
        except InputError as error:
            raise InputError(f"{error}; delete {self.folder} to begin anew") from None

    def _opened(self, state: State) -> "list[GrowingFile]":
        from modernbert.inference.index_files import GrowingFile

        lines = GrowingFile(self.folder / self.lines_file, state.id_bytes)
        self._lines = self._open_files.enter_context(lines)
        return [lines]

    def _take(self, folder: Path, state: State) -> None:
        """Add everything in another folder."""
        with (folder / self.lines_file).open("rb") as lines:
            while piece := lines.read(_PIECE_BYTES):
                self._lines.append(piece)
        self._note(state.texts)

    @contextmanager
    def _held_folder(self) -> Iterator[None]:
        """Hold the locked folder, which is created if there is neither a folder nor an output."""
        finish_removal(self.folder)
        if not self.folder.exists():
            self._require_no_output()
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.address is not None and self.share.task is not None:
                _bring(self._url(self.folder), self.folder)  # another machine may have done it
        with locked(self.folder):
            yield

    def _require_no_output(self) -> None:
        for place in (self.output, *self._places.values()):
            if self.address is not None:
                url = self._url(place)
                if list_remote(url):
                    raise InputError(f"{url}: already exists; delete it or choose another name")
            elif place.exists():
                raise InputError(f"{place}: already exists; delete it or choose another name")

    def _taken_up(self, description: dict[str, Any]) -> State:
        """Return the state so far, or a new one."""
        content = read_object(self.folder / _STATE_FILE, InputError)
        if not content:
            self._require_no_output()
            state = State(job=description)
            self._write_state(state)
            return state
        state = self._parsed(content, self.folder, description)
        if not state.is_complete:
            self._require_no_output()
        return state

    def _parsed(self, content: dict[str, Any], folder: Path, description: dict[str, Any]) -> State:
        """Return a state that was read, after checking that it belongs to this job."""
        before = content.pop("job", {})
        if before != description:
            name = next(k for k in {**before, **description} if before.get(k) != description.get(k))
            raise InputError(
                f"{folder}: belongs to a job with another {name.replace('_', ' ')}; delete "
                "it, or run the earlier command again to continue"
            )
        place = str(folder / _STATE_FILE)
        return replace(parse_foreign(State, content, place, error=InputError), job=description)

    def _write_state(self, state: State) -> None:
        text = json.dumps(asdict(state), indent=2) + "\n"
        write_whole(self.folder / _STATE_FILE, text.encode())
        self._state = self._kept = state

    def _task_folder(self, task: int) -> Path:
        tasks = self.output.with_name(f"{self.output.name}.tasks")
        return tasks / f"{task}-of-{self.share.tasks}"

    def _checked_task(self, task: int) -> State:
        """Return the verified state of one task, fetched from remote storage if needed."""
        folder = self._task_folder(task)
        name = f"task {task} of {self.share.tasks}"
        if self.address is not None:
            _bring(self._url(folder), folder)
        content = read_object(folder / _STATE_FILE, InputError)
        if not content:
            raise InputError(
                f"{self.address or self.output}: {name} has not begun; run it with --task {task}"
            )
        description = {**self._description, "task": task, "tasks": self.share.tasks}
        state = self._parsed(content, folder, description)
        if not state.is_complete:
            raise InputError(
                f"{self.address or self.output}: {name} is not finished; repeat its command"
            )
        for file, sha256 in state.hashes.items():
            if FileHash.of(folder / file).sha256 != sha256:
                raise InputError(
                    f"{folder / file}: was changed since it was written; delete {folder}, and "
                    f"repeat --task {task}"
                )
        return state

    def _deliver_share(self) -> None:
        """Copy a finished share to its storage; its state comes last, and says that it is there."""
        if self.address is not None:
            for name in (*self._state.hashes, _STATE_FILE):
                write_remote(self.folder / name, f"{self._url(self.folder)}/{name}")
            remove_folder(self.folder)

    def _remove_shares(self) -> None:
        if self.share.joins:
            folder = self._task_folder(0).parent
            if self.address is not None:
                remove_remote(self._url(folder))
            remove_folder(folder)

    def _move_output(self) -> None:
        """Move the output's files to their places, as far as they are not there by now."""
        for made, place in self._places.items():
            if self.address is not None:
                files = [made] if made.is_file() else _manifest_last(made)
                for file in files:
                    inner = file.relative_to(made).as_posix()
                    write_remote(file, self._url(place) + (f"/{inner}" if file != made else ""))
            elif made.exists():
                made.replace(place)
            elif not place.exists():
                raise InputError(f"{place}: is gone; delete {self.folder} to begin anew")
        if self.address is None:
            sync(self.output.parent)

    def _url(self, place: Path) -> str:
        """Return the address for a path beside the output, or below it."""
        assert self.address is not None
        inner = place.relative_to(self.output.parent).as_posix()
        return f"{self.address.rpartition('/')[0]}/{inner}"


class LinesJob(Job):
    """A JSON object for each text, in the order of the texts or of a number in them."""

    def __init__(
        self, output: Path, description: Mapping[str, Any], *, share: ShareSettings = _ALONE
    ) -> None:
        if output.suffix != ".jsonl":
            raise InputError(f"{output}: expected a name that ends in .jsonl")
        super().__init__(output, description, share=share)

    def finish(self, *, top_k: int | None = None, by: str | None = None) -> None:
        """Write the lines into the output; of one task's share, note that it is complete.

        Args:
            top_k: How many; all when None.
            by: The key of the number by which they are sorted, the largest first.

        Raises:
            InputError: There was no text.
        """
        self._finish(partial(self._write_lines, by, top_k))

    def _write_lines(self, by: str | None, top_k: int | None) -> None:
        with (
            (self.folder / self.lines_file).open("rb") as lines,
            new_file(self.folder / "output.jsonl") as output,
        ):
            if by is None:
                shutil.copyfileobj(lines, output)
            else:  # of equal numbers the first comes first
                output.writelines(sorted(lines, key=lambda x: -json.loads(x)[by])[:top_k])


def require_unfinished(output: Path) -> None:
    """Refuse a finished output before anything is read; what a stopped job left beside it goes.

    Raises:
        InputError: It is there already.
    """
    folder = output.with_name(f"{output.name}.unfinished")
    finish_removal(folder)
    if output.exists() and not folder.exists():
        raise InputError(f"{output}: already exists; delete it or choose another file")


@contextmanager
def kept_when_stopped(job: Job) -> Iterator[None]:
    """Say how much is kept when a job is stopped or cannot write.

    Raises:
        typer.Exit: The job was stopped.
        RunError: The job cannot write.
    """
    try:
        yield
    except KeyboardInterrupt:
        tell(f"stopped after {job.told}; run the same command to continue")
        raise typer.Exit(_STOPPED) from None
    except OSError as error:
        raise RunError(
            f"{job.address or job.output}: could not be written: {error.strerror or error}; "
            f"{job.told} kept: fix the cause and run the same command to continue"
        ) from None


def _staging(address: str) -> Path:
    """Return the folder in which an output for object storage is made, the same at each call."""
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder("outputs") / name / address.rpartition("/")[2]


def _bring(url: str, folder: Path) -> None:
    """Copy the files below an address into a folder."""
    for file, num_bytes in list_remote(url):
        place = folder / file.rpartition("/")[2]
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            fetch(file, place, FetchSettings(), num_bytes=num_bytes)


def _manifest_last(folder: Path) -> list[Path]:
    """Return the files of an index in an order that is safe for readers: the manifest last."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (path.suffix == ".json", path))
