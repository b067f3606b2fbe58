"""The reference of the command line, written from the command line itself."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer.main

from modernbert.cli.app import app


class Verb(NamedTuple):
    """A verb as typed, such as `finetune classify`, and its command."""

    name: str
    command: Any

    @property
    def page(self) -> str:
        """The name of its page."""
        return self.name.replace(" ", "-") + ".md"

    @property
    def summary(self) -> str:
        """The first sentence of its help."""
        return str(self.command.help).partition("\n")[0]

    @property
    def usage(self) -> str:
        """How it is called, such as `modernbert info [OPTIONS] {PATH}`."""
        context = self.command.context_class(self.command, info_name=self.name)
        return " ".join(["modernbert", self.name, *self.command.collect_usage_pieces(context)])

    @property
    def option_names(self) -> list[str]:
        """Its options as the help spells them, such as `-m, --model <str>`."""
        context = self.command.context_class(self.command, info_name=self.name)
        return [each.get_help_record(context)[0] for each in _options(self.command)]

    @property
    def flags(self) -> list[str]:
        """All names of its options."""
        return [
            flag for each in _options(self.command) for flag in [*each.opts, *each.secondary_opts]
        ]


def verbs() -> Iterator[Verb]:
    """Every verb that does something, in the order of the help."""
    yield from _verbs_of(typer.main.get_command(app), "")


def _verbs_of(group: Any, prefix: str) -> Iterator[Verb]:
    for name in group.list_commands(None):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _verbs_of(command, f"{prefix}{name} ")
        else:
            yield Verb(f"{prefix}{name}", command)


def overview() -> str:
    """A table of all verbs."""
    rows = [f"| [`{verb.name}`]({verb.page}) | {_cell(verb.summary)} |" for verb in verbs()]
    return "\n".join(
        [
            "# The command line",
            "",
            "`modernbert VERB --help` shows the same texts as these pages. Data goes to stdout, "
            "and progress and messages to stderr.",
            "",
            "| verb | what it does |",
            "|---|---|",
            *rows,
            "",
            "## Exit codes",
            "",
            "| code | meaning |",
            "|---|---|",
            "| 0 | success |",
            "| 1 | a bug in this program, with a traceback |",
            "| 2 | a mistake that you can correct, with a one-line message |",
            "| 75 | another process of the run was lost: run the same command again |",
            "| 130, 143 | stopped by Ctrl-C or SIGTERM; what was finished is kept |",
            "",
        ]
    )


def page(verb: Verb) -> str:
    """What a verb does, how it is called, and a table of its arguments and of its options."""
    command = verb.command
    context = command.context_class(command, info_name=verb.name)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    parts = [
        f"# {verb.name}",
        command.help,
        f"```text\n{verb.usage}\n```",
        command.epilog or "",
        _table("Arguments", arguments, context),
        _table("Options", _options(command), context),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option" and not each.hidden]


def _table(title: str, parameters: list[Any], context: Any) -> str:
    if not parameters:
        return ""
    rows = []
    for each in parameters:
        name, meaning = each.get_help_record(context)
        rows.append(f"| {_code(name)} | {_cell(meaning)} |")
    return "\n".join([f"## {title}", "", "| name | meaning |", "|---|---|", *rows])


def _code(name: str) -> str:
    """`-m, --model <str>` as code, of which each flag stays whole on a narrow screen."""
    escaped = name.replace("|", "\\|")
    return " ".join(f"`{part}`" for part in escaped.replace(", ", ",\n").split("\n"))


def _cell(text: str) -> str:
    """A text as a cell of a table: one line, with bars and angle brackets escaped."""
    line = " ".join(text.split())
    outside = re.split(r"(`[^`]*`)", line)
    return "".join(
        part.replace("|", "\\|") if part.startswith("`") else _escaped(part) for part in outside
    )


def _escaped(text: str) -> str:
    return re.sub(r"([|<>\[\]*_])", r"\\\1", text)
