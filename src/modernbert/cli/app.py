"""The verbs put together, and what becomes of their errors.

Exit codes: 0 done; 1 a fault of this program, with its traceback; 2 something that the user can
put right, with one line that says what; 75 another process of the run is gone, so that the same
command is to be run again; 130 and 143 stopped by Ctrl-C and by SIGTERM, all of it saved.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modernbert.cli import (
    answer,
    average,
    classify,
    demo,
    embed,
    evaluate,
    export,
    fill_mask,
    finetune,
    info,
    mine,
    plan,
    prepare,
    pretrain,
    push,
    report,
    rerank,
    search,
    serve,
    tag,
    tokenizer,
)
from modernbert.cli.inference_options import warnings_told
from modernbert.errors import ModernBertError, ProcessError

USER_ERROR = 2
RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class _InOrderOfUse(TyperGroup):
    """Lists the verbs as one needs them; the default order puts groups last."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        making = [
            "demo",
            "tokenizer",
            "prepare",
            "plan",
            "pretrain",
            "average",
            "finetune",
            "evaluate",
            "report",
        ]
        using = [
            "fill-mask",
            "embed",
            "search",
            "mine",
            "classify",
            "tag",
            "answer",
            "rerank",
            "serve",
            "info",
        ]
        return [*making, *using, "export", "push"]


app = typer.Typer(
    name="modernbert",
    cls=_InOrderOfUse,
    help="ModernBERT from a raw corpus to a trained encoder.",
    epilog="Start with `modernbert demo OUT`: from a corpus to a model in a few minutes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(export.app, name="export")
app.add_typer(finetune.app, name="finetune")
app.command()(prepare.prepare)
app.command()(plan.plan)
app.command()(pretrain.pretrain)
app.command()(average.average)
app.command()(report.report)
app.command()(evaluate.evaluate)
app.command()(fill_mask.fill_mask)
app.command()(embed.embed)
app.command()(search.search)
app.command()(mine.mine)
app.command()(classify.classify)
app.command()(tag.tag)
app.command()(answer.answer)
app.command()(rerank.rerank)
app.command()(serve.serve)
app.command()(info.info)
app.command()(push.push)
app.command()(demo.demo)


def _print_version(asked: bool) -> None:
    if asked:
        from modernbert import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit code; `arguments` are those of the process when None."""
    try:
        with warnings_told():
            app(args=arguments, prog_name="modernbert")
    except ModernBertError as error:
        # The messages are one line by contract; a foreign text within one may not be.
        print(f"{_who()}error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(RUN_AGAIN if isinstance(error, ProcessError) else USER_ERROR)
    finally:
        _flush_stdout()


def _who() -> str:
    """Which of several processes speaks; any of them may be the one that has failed."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"process {os.environ.get('RANK', '?')}: " if several else ""


def _flush_stdout() -> None:
    """Write what is buffered; a reader that is gone, such as `head`, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
