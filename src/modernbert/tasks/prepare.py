"""`prepare`: from a corpus and a tokenizer to token shards, with plain arguments."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modernbert.data import prepare as preparation
from modernbert.data.prepare import PrepareResult
from modernbert.data.settings import PrepareSettings
from modernbert.data.shards import SpecialTokens
from modernbert.data.tokenize_units import PrepareProgress
from modernbert.settings import parse
from modernbert.tokenizer.tokenizer import Tokenizer


def prepare(
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    tokenizer: Path | str,
    *,
    workers: int | None = None,
    on_progress: Callable[[PrepareProgress], None] | None = None,
    **settings: Any,
) -> PrepareResult:
    """Make token shards of a corpus; a call that was stopped is continued by the same call.

    Args:
        inputs: Files and folders of texts.
        output: The folder of the shards; those of held-out documents are in `held-out` within.
        tokenizer: The folder of a tokenizer, or its id on the hub.
        workers: Processes; as many as are useful when None.
        on_progress: Is told how far it is.
        settings: The fields of `PrepareSettings`, such as `held_out=0.01`.

    Returns:
        The shards, and what could not be read.

    Raises:
        ModernBertError: Something that was named cannot be used.
    """
    return preparation.prepare(
        [inputs] if isinstance(inputs, Path | str) else inputs,
        output,
        **tokenizer_arguments(tokenizer),
        settings=parse(PrepareSettings, settings, where="prepare"),
        workers=workers,
        on_progress=on_progress,
    )


def tokenizer_arguments(tokenizer: Path | str) -> dict[str, Any]:
    """Return what `data.prepare`, which does not know the tokenizer, needs of one."""
    loaded = Tokenizer.from_pretrained(tokenizer)
    return {
        "encoder_factory": partial(_make_encoder, str(tokenizer)),
        "vocab_size": loaded.vocab_size,
        "special_token_ids": SpecialTokens(
            cls=loaded.cls_token_id,
            sep=loaded.sep_token_id,
            pad=loaded.pad_token_id,
            mask=loaded.mask_token_id,
            unk=loaded.unk_token_id,
        ),
        "tokenizer_fingerprint": loaded.fingerprint,
    }


def _make_encoder(tokenizer: str) -> Callable[[Sequence[str]], list[list[int]]]:
    """Make the function that encodes texts, in each worker process."""
    return partial(Tokenizer.from_pretrained(tokenizer).encode_batch, special_tokens=False)
