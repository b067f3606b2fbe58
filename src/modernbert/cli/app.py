"""The command line: its verbs in order, their examples, and exit codes.

Exit codes: 0 for success; 1 for a bug in this program, with a traceback; 2 for a mistake that you
can correct, with a one-line message; 75 if another process of the run was lost and the same command
should be run again; 130 and 143 after Ctrl-C and SIGTERM, with everything saved.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from modernbert.cli import (
    demo,
    embed,
    evaluate,
    export,
    finetune,
    info,
    mine,
    plan,
    predict,
    prepare,
    pretrain,
    recipe,
    search,
    serve,
    tokenizer,
    verify,
)
from modernbert.cli.inference import warnings_told
from modernbert.cli.options import example, takes_revision
from modernbert.cli.terminal import tell, visible, visible_output
from modernbert.errors import ModernBertError, ProcessError

USER_ERROR = 2
_STOPPED = 130
RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h

# What the disk and the rights of a user can refuse anywhere, and what to do about it.
_FULL = "; make room, and run the same command again"
_ERRORS_OF_THE_SYSTEM = {
    errno.EACCES: "; choose another place, or change its rights",
    errno.EPERM: "; choose another place, or change its rights",
    errno.EROFS: "; choose another place",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EIO: "; the disk fails",
    errno.ENOMEM: "; close other programs, or give less at once",
    errno.EMFILE: "; raise the limit of open files (ulimit -n)",
    errno.ENFILE: "; too many files are open on this machine",
    errno.ENAMETOOLONG: "; choose a shorter name",
    errno.ELOOP: "; a link leads in a circle",
    errno.ENOENT: "",
    errno.ENOTDIR: "; a file stands where a folder is expected",
    errno.EISDIR: "; a folder stands where a file is expected",
    errno.EEXIST: "; delete it, or choose another name",
    errno.ENOTEMPTY: "; delete it, or choose another name",
}

# Verbs in the order in which one needs them, each with an example; groups have their own.
_VERBS: dict[str, tuple[Callable[..., Any] | typer.Typer, str]] = {
    "demo": (demo.demo, "demo"),
    "tokenizer": (tokenizer.app, ""),
    "prepare": (prepare.prepare, "corpus shards --tokenizer tokenizer"),
    "recipe": (recipe.app, ""),
    "plan": (plan.plan, "base --gpus 8 --kind h100"),
    "pretrain": (pretrain.pretrain, "recipe.toml"),
    "average": (pretrain.average, "runs/mine --best 3 --held-out shards/held-out -o averaged"),
    "finetune": (finetune.app, ""),
    "evaluate": (evaluate.evaluate, "runs/mine/model glue --data data/glue"),
    "score": (evaluate.score, "runs/labels/model new.csv"),
    "report": (pretrain.report, "runs/mine"),
    "fill-mask": (predict.fill_mask, 'runs/mine/model "The capital of France is [MASK]."'),
    "embed": (embed.embed, "texts.jsonl runs/retriever/model -o texts.index"),
    "search": (search.search, 'texts.index runs/retriever/model "Who wrote it?"'),
    "index": (search.index_app, ""),
    "mine": (mine.mine, "train.jsonl runs/retriever/model -o negatives.jsonl"),
    "classify": (predict.classify, 'runs/labels/model "A fine film."'),
    "tag": (predict.tag, 'runs/tags/model "Ada Lovelace lived in London."'),
    "answer": (predict.answer, 'runs/answers/model --context article.txt "Who wrote it?"'),
    "rerank": (predict.rerank, 'runs/reranker/model "Who wrote it?" "A text." "Another."'),
    "serve": (serve.serve, "runs/embedder labels=runs/labels/model"),
    "info": (info.info, "runs/mine/model"),
    "verify": (verify.verify, "runs/mine"),
    "export": (export.app, ""),
    "push": (export.push, "runs/labels/model owner/name"),
}

# The parameter of each verb that may name a model or a tokenizer on the hub, for `--revision`.
_USES = ("fill-mask", "embed", "search", "classify", "tag", "answer", "rerank", "mine")
_REVISIONS = {
    "prepare": "tokenizer",
    "serve": "models",
    **dict.fromkeys((*_USES, "evaluate", "score"), "model"),
}


class _InOrderOfUse(TyperGroup):
    """Lists the verbs as in `_VERBS`; the default order puts groups last."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(_VERBS)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; a Ctrl-C that it does not handle itself ends it with one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # typer ends without a word
            if hasattr(signal, "setitimer"):  # it was seen; see `__main__`
                signal.setitimer(signal.ITIMER_REAL, 0)
            tell("stopped; what was finished is kept: run the same command to continue or restart")
            signal.signal(signal.SIGINT, before)
            raise typer.Exit(_STOPPED) from None


app = typer.Typer(
    name="modernbert",
    cls=_InOrderOfUse,
    help="Train, fine-tune, use and serve ModernBERT encoders.",
    epilog="Example: `modernbert demo demo` trains a tiny model in a few minutes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, (_verb, _arguments) in _VERBS.items():
    if isinstance(_verb, typer.Typer):
        app.add_typer(_verb, name=_name)
    else:
        _pinned = _REVISIONS.get(_name)
        _command = _verb if _pinned is None else takes_revision(_verb, _pinned)
        app.command(_name, epilog=example(f"{_name} {_arguments}"))(_command)


def _print_version(asked: bool) -> None:
    if asked:
        from modernbert import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and leave with its exit code; `arguments` are those of the process when None."""
    try:
        with warnings_told(), visible_output():
            app(args=arguments, prog_name="modernbert")
    except SystemExit as left:
        if isinstance(getattr(left.__context__, "__cause__", None), KeyboardInterrupt):
            tell("stopped")  # before a verb or after it, where typer ends without a word
        raise
    except ModernBertError as error:
        _fail(str(error), RUN_AGAIN if isinstance(error, ProcessError) else USER_ERROR)
    except OSError as error:
        if error.errno not in _ERRORS_OF_THE_SYSTEM:
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _fail(f"{place}{error.strerror}{_ERRORS_OF_THE_SYSTEM[error.errno]}", USER_ERROR)
    except MemoryError as error:
        _fail(
            f"not enough memory; close other programs, or give less at once ({error})", USER_ERROR
        )
    finally:
        _flush_stdout()


def _fail(message: str, exit_code: int) -> NoReturn:
    # The messages are one line by contract; a foreign text within one may not be.
    print(f"{_who()}error:", visible(" ".join(message.split())), file=sys.stderr)
    sys.exit(exit_code)


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
