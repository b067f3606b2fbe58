"""`modernbert prepare`: tokenizes a corpus into shards."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.options import AsJson, Corpus, argument, echo_json, takes_settings
from modernbert.cli.terminal import Meter, counted, short_count, tell
from modernbert.data.settings import PrepareSettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.data.prepare import CorpusTokenizer, PrepareResult
    from modernbert.data.shards import ShardFolder
    from modernbert.data.tokenizing import PrepareProgress

_DEFAULTS = PrepareSettings(held_out=0.01)
_STOPPED = 130  # what a shell expects after Ctrl-C


@takes_settings
def prepare(
    corpus: Corpus,
    output: Annotated[
        Path,
        argument("OUT", "The folder to write the shards to; held-out ones go to OUT/held-out."),
    ],
    tokenizer: Annotated[
        str, typer.Option(help="Folder or hub id of the tokenizer.", show_default=False)
    ],
    settings: PrepareSettings = _DEFAULTS,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes.", show_default="one per core")
    ] = None,
    task: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tokenize only this share of the corpus, from 0 to TASKS - 1.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of shares into which the corpus is divided.", show_default=False
        ),
    ] = None,
    from_datatrove: Annotated[
        bool,
        typer.Option(
            "--from-datatrove", help="Read token files written by datatrove (.ds, .index)."
        ),
    ] = False,
    end_token: Annotated[
        str | None,
        typer.Option(
            help="The token that datatrove put after each document, if not [SEP].",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tokenize a corpus into shuffled token shards.

    You can stop it at any moment: the same command continues where it stopped.

    To share the work on a cluster, run it with --task I --tasks N for each I from 0 to N - 1, in
    any order and at the same time, and then once without these options. The last call writes the
    same shards as a single call would, and finishes whatever a task left undone.
    """
    is_share = task is not None or tasks is not None
    if from_datatrove and is_share:
        raise InputError("--from-datatrove: reads all files at once, without --task and --tasks")
    if end_token is not None and not from_datatrove:
        raise InputError("--end-token: has an effect with --from-datatrove only")
    try:
        if is_share:
            _prepare_share(corpus, output, tokenizer, settings, task, tasks, workers, as_json)
            return
        if from_datatrove:
            result = _import_datatrove(corpus, output, tokenizer, settings, end_token)
        else:
            result = prepare_shards(corpus, output, tokenizer, settings, workers=workers)
    except KeyboardInterrupt:
        tell("stopped; run the same command again to continue")
        raise typer.Exit(_STOPPED) from None
    if as_json:
        echo_json(_as_mapping(result))
    else:
        typer.echo("\n".join(_report(result)))


def prepare_shards(
    corpus: Sequence[Path],
    output: Path,
    tokenizer: str | Path,
    settings: "PrepareSettings",
    *,
    workers: int | None = None,
) -> "PrepareResult":
    """Prepare a corpus with a tokenizer, with the progress on stderr."""
    from modernbert.data import prepare as preparation

    with Meter("tokenizing") as meter:
        result = preparation.prepare(
            corpus,
            output,
            corpus_tokenizer(tokenizer),
            settings=settings,
            workers=workers,
            on_progress=partial(show_progress, meter),
        )
    if str(result.skipped):
        tell(str(result.skipped))
    return result


def corpus_tokenizer(tokenizer: Path | str) -> "CorpusTokenizer":
    """Return what `data.prepare`, which does not know the tokenizer, needs of one."""
    from modernbert.data.prepare import CorpusTokenizer
    from modernbert.data.shards import SpecialTokens
    from modernbert.tokenizer.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    return CorpusTokenizer(
        encoder_factory=partial(_make_encoder, str(tokenizer)),
        vocab_size=loaded.vocab_size,
        special_token_ids=SpecialTokens(
            cls=loaded.cls_token_id,
            sep=loaded.sep_token_id,
            pad=loaded.pad_token_id,
            mask=loaded.mask_token_id,
            unk=loaded.unk_token_id,
        ),
        fingerprint=loaded.fingerprint,
    )


def _make_encoder(tokenizer: str) -> Callable[[Sequence[str]], list[list[int]]]:
    """Make the function that encodes texts, in each worker process."""
    from modernbert.tokenizer.tokenizer import Tokenizer

    return partial(Tokenizer.from_pretrained(tokenizer).encode_batch, special_tokens=False)


def _import_datatrove(
    corpus: Sequence[Path],
    output: Path,
    tokenizer: str,
    settings: "PrepareSettings",
    end_token: str | None,
) -> "PrepareResult":
    from modernbert.data import prepare as preparation
    from modernbert.tokenizer.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    end_token_id = None if end_token is None else loaded.token_to_id(end_token)
    if end_token is not None and end_token_id is None:
        raise InputError(f"--end-token: got {end_token!r}, which the tokenizer does not have")

    def reencode(token_ids: list[int]) -> list[int]:
        (ids,) = loaded.encode_batch([loaded.decode(token_ids)], special_tokens=False)
        return list(ids)

    with Meter("reading token files") as meter:
        result = preparation.import_datatrove(
            corpus,
            output,
            corpus_tokenizer(tokenizer),
            reencode=reencode,
            end_token_id=end_token_id,
            settings=settings,
            on_progress=partial(show_progress, meter),
        )
    if str(result.skipped):
        tell(str(result.skipped))
    return result


def _prepare_share(
    corpus: Sequence[Path],
    output: Path,
    tokenizer: str,
    settings: "PrepareSettings",
    task: int | None,
    tasks: int | None,
    workers: int | None,
    as_json: bool,
) -> None:
    from modernbert.data.prepare import prepare_share

    if task is None or tasks is None:
        raise InputError("--task and --tasks: got only one of them, expected both or neither")
    with Meter(f"task {task}") as meter:
        result = prepare_share(
            corpus,
            output,
            corpus_tokenizer(tokenizer),
            task=task,
            num_tasks=tasks,
            settings=settings,
            workers=workers,
            on_progress=partial(show_progress, meter),
        )
    if as_json:
        echo_json(
            {
                "units": result.num_units,
                "documents": result.num_documents,
                "tokens": result.num_tokens,
                "already_finished": result.already_finished,
            }
        )
    else:
        documents = counted(result.num_documents, "document")
        typer.echo(f"task {task} of {tasks}: {documents}, {result.num_tokens:,} tokens")


def show_progress(meter: Meter, progress: "PrepareProgress") -> None:
    """Show how far a preparation is."""
    if meter.title != progress.stage:
        meter.restart(progress.stage)
    amount = f"{counted(progress.documents, 'document')}, {short_count(progress.tokens)} tokens"
    if progress.total is None:
        amount = counted(progress.done, "file")
    meter.update(progress.done, progress.total, amount)


def _parts(result: "PrepareResult") -> "list[ShardFolder]":
    return [result.train, *([result.held_out] if result.held_out else [])]


def _report(result: "PrepareResult") -> list[str]:
    done = "  (finished before)" if result.already_finished else ""
    return [
        f"{part.path}: {counted(part.num_documents, 'document')}, {part.num_tokens:,} tokens{done}"
        for part in _parts(result)
    ]


def _as_mapping(result: "PrepareResult") -> dict[str, Any]:
    described = [
        {
            "path": str(part.path),
            "documents": part.num_documents,
            "tokens": part.num_tokens,
            "fingerprint": part.fingerprint,
        }
        for part in _parts(result)
    ]
    return {
        "train": described[0],
        "held_out": described[1] if len(described) > 1 else None,
        "skipped": result.skipped.counts,
        "already_finished": result.already_finished,
    }
