"""What the documents say is true: names exist, tables are complete, snippets and commands work."""

import ast
import dataclasses
import importlib
import pkgutil
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import modernbert
from docs import tables
from modernbert.cli.app import app
from modernbert.settings import parse, to_mapping
from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(modernbert.__file__).parent
TOP_LEVEL = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "llms.txt")]
DOCUMENTS = [*TOP_LEVEL, *sorted((ROOT / "docs").rglob("*.md"))]

# Folders of the repository: a path that begins with one of these is meant as a path in it.
FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", ".ci")
SOURCE_SUFFIXES = (".py", ".c", ".h", ".md")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
# `model/rope.py`: `rotary_table`, `rotate`
FILE_AND_NAMES = re.compile(r"`([\w/]+\.py)`: (`[A-Za-z_][\w.]*`(?:,\s+`[A-Za-z_][\w.]*`)*)")
DOTTED = re.compile(r"modernbert(\.\w+)+")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
# Written by docs/tables.py and tested as a whole.
GENERATED = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)
TABLE_ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \|", re.MULTILINE)


def prose(document: Path) -> str:
    """The text without its fenced blocks and its generated parts."""
    return GENERATED.sub("", FENCE.sub("", document.read_text(encoding="utf-8")))


def blocks(document: Path, *languages: str) -> Iterator[str]:
    for language, block in FENCE.findall(document.read_text(encoding="utf-8")):
        if language in languages:
            yield block


def sections(document: Path) -> dict[str, str]:
    """The text below each heading, to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def is_path(code: str) -> bool:
    """Whether a piece of code is meant as a file or folder of this repository."""
    if not re.fullmatch(r"[\w./-]+", code):
        return False
    return code.endswith(SOURCE_SUFFIXES) or code.split("/")[0] in FOLDERS


def exists(path: str, document: Path) -> bool:
    """In the repository, in the package, or beside the document."""
    return any((base / path).exists() for base in (ROOT, PACKAGE, document.parent))


def resolve(module: str, dotted: str) -> bool:
    """Whether a module has an attribute, or a class in it a field, of that name."""
    found: Any = importlib.import_module(module)
    for part in dotted.split("."):
        if not hasattr(found, part):
            return dataclasses.is_dataclass(found) and part in typing.get_type_hints(found)
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_and_links_exist(document: Path) -> None:
    text = prose(document)
    paths = [code for code in CODE.findall(text) if is_path(code)]
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [path for path in paths if not exists(path, document)] == []
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_names_exist(document: Path) -> None:
    text = prose(document)
    missing = []
    for path, names in FILE_AND_NAMES.findall(text):
        module = "modernbert." + path.removesuffix(".py").replace("/", ".")
        missing += [f"{path}: {n}" for n in CODE.findall(names) if not resolve(module, n)]
    for code in CODE.findall(text):
        if DOTTED.fullmatch(code) and not is_path(code) and not _resolves(code):
            missing.append(code)
    assert missing == []


def _resolves(code: str) -> bool:
    """A module, or a name in one."""
    modules = {m.name for m in pkgutil.walk_packages(modernbert.__path__, "modernbert.")}
    parts = code.split(".")
    for size in range(len(parts), 0, -1):
        module = ".".join(parts[:size])
        if module in {"modernbert", *modules}:
            rest = ".".join(parts[size:])
            return not rest or resolve(module, rest)
    return False


def test_generated_parts_are_up_to_date() -> None:
    """`make docs` writes them."""
    stale = [name_of(path) for path, text in tables.documents().items() if text != path.read_text()]
    assert stale == []


def test_every_file_has_a_summary() -> None:
    """Its first line stands in the tables of docs/architecture.md."""
    folders = [tables.PACKAGE, *tables.rooms()]
    files = [path for folder in folders for path in tables.files_of(folder)]
    assert [str(path) for path in files if not tables.summary(path)] == []
    assert len(files) == len(set(files)) > 200


def test_every_deviation_is_listed() -> None:
    """docs/paper.md has a row for each `Deviation:` of the code, and no other."""
    marked = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for _ in re.findall(r"^\s*Deviation:", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    listed = TABLE_ROW.findall(sections(ROOT / "docs" / "paper.md")["Deviations"])
    assert sorted(marked) == sorted(path for path, _ in listed)


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


RECIPES = ROOT / "docs" / "recipes.md"
TOP_OF_THE_FILE = "The top of the file"


# Keys of a phase that have their table in the document under [[phases]]; the others are at the top.
PHASES_OWN = ("name", "start_from")


def settings_of(key: str) -> Any:
    """The settings class of a table of a recipe, such as `training.schedule`."""
    of_run = key.split(".")[0] in typing.get_type_hints(PretrainingRecipe)
    found: Any = PretrainingRecipe if of_run else PhaseRecipe
    for part in key.split(".") if key else ():
        found = next(_classes_in(typing.get_type_hints(found)[part]))
    return found


def _classes_in(hint: Any) -> Iterator[Any]:
    """The settings classes in a type such as `tuple[SourceSettings, ...]` or `X | None`."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _classes_in(argument)


def tables_of_keys() -> dict[str, dict[str, str]]:
    """What the document says: the default of each key, by table; the top's name is empty."""
    found = {}
    for heading, text in sections(RECIPES).items():
        table = re.fullmatch(r"`\[+([\w.]+)\]+`", heading)
        if table or heading == TOP_OF_THE_FILE:
            found[table[1] if table else ""] = dict(TABLE_ROW.findall(text))
    return found


def expected_defaults(settings: Any) -> dict[str, str | dict[str, Any]]:
    """Of each key that is no table: what its default is, as the document says it."""
    hints = typing.get_type_hints(settings)
    expected: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if any(_classes_in(hints[field.name])):
            continue
        if field.default is dataclasses.MISSING:
            expected[field.name] = "required"
        else:
            expected[field.name] = "none" if field.default is None else field.default
    return expected


def expected_of(table: str) -> dict[str, str | dict[str, Any]]:
    """The same for a table of the document: a phase's keys may stand at the top too."""
    expected = expected_defaults(settings_of(table))
    if not table:
        expected = expected_defaults(PretrainingRecipe) | expected
    if table in ("", "phases"):
        own = table == "phases"
        return {name: each for name, each in expected.items() if (name in PHASES_OWN) == own}
    return expected


def read_default(said: str) -> Any:
    """`required`, `none`, or a value of TOML in backticks, whose lists are tuples in settings."""
    value = re.fullmatch(r"`(.+)`", said)
    found = tomllib.loads(f"x = {value[1]}")["x"] if value else said
    return tuple(found) if isinstance(found, list) else found


def test_recipes_lists_every_table() -> None:
    def walk(settings: Any, prefix: str) -> Iterator[str]:
        yield prefix
        for name, hint in typing.get_type_hints(settings).items():
            for inner in _classes_in(hint):
                yield from walk(inner, f"{prefix}.{name}" if prefix else name)

    of_run = {table for table in walk(PretrainingRecipe, "") if "phases." not in table}
    assert sorted(tables_of_keys()) == sorted({*of_run, *walk(PhaseRecipe, "")})


@pytest.mark.parametrize("table", sorted(tables_of_keys()))
def test_keys_and_defaults_of_a_recipe(table: str) -> None:
    said = {name: read_default(default) for name, default in tables_of_keys()[table].items()}
    assert said == expected_of(table)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_recipes_parse(document: Path) -> None:
    for number, block in enumerate(blocks(document, "toml")):
        recipe = parse(PretrainingRecipe, tomllib.loads(block), where=f"{document} {number}")
        assert to_mapping(recipe)["output"]


def test_there_are_recipes() -> None:
    assert len(list(blocks(RECIPES, "toml"))) >= 2


def commands(document: Path) -> Iterator[list[str]]:
    """Each line of the shell blocks as words; a backslash goes on with the next."""
    for block in blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_exist(document: Path) -> None:
    """Verbs and their options, targets of make, and scripts that Python is to run."""
    group: Any = typer.main.get_command(app)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = re.findall(r"`make ([\w-]+)`", prose(document))
    for program, *arguments in commands(document):
        if program.endswith("modernbert"):
            check_verb(group, arguments)
        elif program == "make":
            made += [word for word in arguments if "=" not in word]
    assert set(made) <= set(targets)


def check_verb(group: Any, arguments: list[str]) -> None:
    """Parse arguments as the command line does, without running the verb."""
    verb, *rest = arguments
    assert verb in group.commands, f"modernbert {verb}"
    command = group.commands[verb]
    if hasattr(command, "commands"):
        check_verb(command, rest)
    else:
        command.make_context(verb, rest)


PYTHON_DOCUMENTS = [document for document in DOCUMENTS if any(blocks(document, "python"))]


@pytest.mark.parametrize("document", PYTHON_DOCUMENTS, ids=name_of)
def test_python_snippets_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in one namespace, in a folder with a tiny model under the names used."""
    source = "\n".join(blocks(document, "python"))
    for folder in model_folders(source):
        make_model(tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(document), "exec"), {"__name__": "__main__"})


def model_folders(source: str) -> set[str]:
    """The texts in a program that name a model's folder."""
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and text.endswith("/model")}


# What a model is for by the name of its run; any other is a masked language model.
LABELS = {"labels": ("bad", "good"), "entities": ("B-PER", "O"), "reranker": ("relevance",)}


def make_model(folder: Path) -> None:
    """A tiny model and its tokenizer, as a training leaves them."""
    from modernbert.model.heads import ClassifierSettings
    from modernbert.model.initialize import initialize
    from modernbert.tokenizer.train import train

    tokenizer = train([f"The root of number {i} is {i}." for i in range(40)], vocab_size=384)
    names = ("unk_token_id", "cls_token_id", "sep_token_id", "pad_token_id", "mask_token_id")
    config = modernbert.EncoderConfig.preset(
        "tiny",
        vocab_size=tokenizer.vocab_size,
        **{name: getattr(tokenizer, name) for name in names},
    )
    purpose = folder.parent.name
    if purpose in LABELS:
        of_words = purpose == "entities"
        head = modernbert.TokenClassifier if of_words else modernbert.SequenceClassifier
        model: Any = head(config, ClassifierSettings(labels=LABELS[purpose]))
    else:
        model = modernbert.MaskedLanguageModel(config)
    initialize(model, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
