"""Measures the package for docs/architecture.md: `python -m docs.measure [SRC]`.

SRC is the folder that holds the package, `src` unless another is given, such as that of an older
commit. "Files to open" are those in which at least one function runs while a small model is
pretrained, fine-tuned or asked for an embedding, found by `sys.setprofile`.
"""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SUFFIXES = (".py", ".c", ".h", ".toml", ".html", ".css")

# What in the source belongs to one head, one loss or one format that exists.
EXTENSIONS = {
    "a head (answers in a text)": r"SpanClassifier|QuestionAnswerer|question_answering",
    "a ranking loss (margin)": r"\"margin\"|margin_mse|\.margin\b",
    "a file format (TSV)": r"\"\.tsv\"",
}

TRACER = """
import atexit, json, sys, threading
from pathlib import Path
import numpy, tokenizers, torch  # before the profile, which makes their import slow
from modernbert.cli import main
output, *arguments = sys.argv[1:]
seen = set()
def note(frame, event, _):
    if event == "call" and frame.f_code.co_flags & 1:  # a function, no module or class body
        seen.add(frame.f_code.co_filename)
atexit.register(lambda: Path(output).write_text(json.dumps(sorted(seen))))
threading.setprofile(note)
sys.setprofile(note)
main(arguments)
"""

RECIPE = """
output = "run"
tokenizer = "tokenizer"
sources = [{ shards = "shards" }]
model = { preset = "tiny" }
packing = { max_seqlen = 64, bin_tokens = 256 }
batch = { bins_per_step = 2 }
[training]
total_tokens = 2048
schedule = { peak_learning_rate = 1e-3, warmup_tokens = 512, decay = "1-sqrt", decay_tokens = 512 }
"""


class Source:
    """The package of one commit."""

    def __init__(self, src: Path) -> None:
        self.src, self.package = src, src / "modernbert"

    def files(self, *suffixes: str) -> list[Path]:
        """Its files, in order."""
        return sorted(path for path in self.package.rglob("*") if path.suffix in suffixes)

    def public_names(self) -> Iterator[tuple[Path, str, bool]]:
        """Each public name at the top of a module, and whether it is a class or function."""
        for path in self.files(".py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                for name, defined in _names(node):
                    if not name.startswith("_"):
                        yield path, name, defined

    def sizes(self) -> dict[str, str]:
        """Files, lines, and names."""
        num_lines = sum(path.read_bytes().count(b"\n") for path in self.files(".py"))
        names = list(self.public_names())
        num_public = sum(defined for _, _, defined in names)
        places = Counter(name for _, name in {(path, name) for path, name, _ in names})
        types = [name for name, count in places.items() if count > 1 and _is_type(name)]
        found = {
            "files": f"{len(self.files(*SUFFIXES))}, {len(self.files('.py'))} of them Python",
            "lines of Python": f"{num_lines:,}",
            **self.kinds_of_lines(),
            "public classes and functions per 1,000 lines": f"{1000 * num_public / num_lines:.1f}",
            "names of public types defined in several files": str(len(types)),
        }
        for what, pattern in EXTENSIONS.items():
            num_files = sum(
                bool(re.search(pattern, path.read_text())) for path in self.files(".py")
            )
            found[f"files that name {what}"] = str(num_files)
        return found

    def kinds_of_lines(self) -> dict[str, str]:
        """How many lines are statements, docstrings and so on, the most first."""
        found = Counter(kind for path in self.files(".py") for kind in _kinds_of_lines(path))
        return {f"of them {kind}": f"{count:,}" for kind, count in found.most_common()}

    def lines_by_room(self) -> dict[str, str]:
        """Files and lines of Python of each room, the largest first."""
        files: Counter[str] = Counter()
        lines: Counter[str] = Counter()
        for path in self.files(".py"):
            parts = path.relative_to(self.package).parts
            room = f"`{parts[0]}`" if len(parts) > 1 else "the ground floor"
            files[room] += 1
            lines[room] += path.read_bytes().count(b"\n")
        return {
            f"lines of {room}": f"{count:,} in {files[room]} files"
            for room, count in lines.most_common()
        }

    def run(self, folder: Path, *arguments: str) -> None:
        """Run a verb in a folder."""
        command = [sys.executable, "-m", "modernbert", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.src)}
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)

    def trace(self, folder: Path, *arguments: str, ask: bool = False) -> str:
        """Run a verb in a folder; how many files had functions that ran, and in which rooms."""
        output = folder / "trace.json"
        command = [sys.executable, "-c", TRACER, str(output), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.src)}
        with subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            _ask_for_embedding(process) if ask else process.communicate()
        assert process.returncode in (0, -signal.SIGTERM), arguments
        inside = [
            Path(file).relative_to(self.package)
            for file in json.loads(output.read_text())
            if Path(file).is_relative_to(self.package)
        ]
        rooms = Counter(path.parts[0] for path in inside if len(path.parts) > 1)
        return f"{len(inside)} ({', '.join(f'{r} {n}' for r, n in rooms.most_common(3))})"


def _kinds_of_lines(path: Path) -> list[str]:
    """What each line of a file belongs to."""
    text = path.read_text(encoding="utf-8")
    kinds = ["statements"] * len(text.splitlines())

    def mark(kind: str, first: int, last: int) -> None:
        kinds[first - 1 : last] = [kind] * (last - first + 1)

    nodes = list(ast.walk(ast.parse(text)))
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            mark("imports", node.lineno, node.end_lineno or 0)
        elif isinstance(node, DOCUMENTED[1:]):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            mark("signatures and decorators", first, max(first, node.body[0].lineno - 1))
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            mark("comments" if line.strip() else "blank", number, number)
    for node in nodes:
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            mark("docstrings", node.body[0].lineno, node.body[0].end_lineno or 0)
    return kinds


def _names(node: ast.stmt) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, True
    elif isinstance(node, ast.Assign):
        yield from ((each.id, False) for each in node.targets if isinstance(each, ast.Name))


def _is_type(name: str) -> bool:
    """Whether a name is written as those of classes are; one letter is a type variable."""
    return len(name) > 1 and name[0].isupper() and not name.isupper()


def _ask_for_embedding(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if address := re.search(r"http://127\.0\.0\.1:\d+", line):
            body = json.dumps({"inputs": ["A text."]}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{address[0]}/embed", body, headers)
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
    process.wait()


def followed(source: Source, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files to open to follow three things from their beginning to their end."""
    texts = [f"The number {i} is {'even' if i % 2 == 0 else 'odd'}." for i in range(200)]
    (folder / "corpus.txt").write_text("\n".join(texts))
    rows = [f"{text},{text.split()[-1]}" for text in texts[:32]]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]))
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"text": t * 9}) for t in texts))
    (folder / "recipe.toml").write_text(RECIPE)
    source.run(folder, "tokenizer", "train", "corpus.jsonl", "tokenizer", "--vocab-size", "384")
    source.run(folder, "prepare", "corpus.jsonl", "shards", "--tokenizer", "tokenizer")
    data = ("--model", "run/model", "--train", "train.csv", "--output", "labels", "--epochs", "1")
    yield "`pretrain`", source.trace(folder, "pretrain", "recipe.toml")
    yield "`finetune classify`", source.trace(folder, "finetune", "classify", *data)
    serve = source.trace(folder, "serve", "run/model", "--port", "0", ask=True)
    yield "`serve` and `/embed`", serve


def main(arguments: Sequence[str]) -> None:
    """Print the measures as rows of a table."""
    source = Source(Path(arguments[0] if arguments else "src").resolve())
    for name, value in {**source.sizes(), **source.lines_by_room()}.items():
        print(f"| {name} | {value} |")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in followed(source, Path(folder)):
            print(f"| files to open for {name} | {value} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
