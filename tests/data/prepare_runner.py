"""Runs `prepare` in a process of its own: `prepare_runner.py OPTIONS_JSON`.

So small limits that a small corpus goes through every path: many units, runs and buckets.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data import byte_encoder

from modernbert.data import documents, spill
from modernbert.data import prepare as prepare_module
from modernbert.data.prepare import CorpusTokenizer, prepare, prepare_share
from modernbert.data.settings import PrepareSettings
from modernbert.data.shards import SpecialTokens
from modernbert.errors import ModernBertError

SPECIAL = SpecialTokens(cls=251, sep=252, pad=253, mask=254, unk=255)


def use_limits(*, unit_bytes: int, run_tokens: int, bucket_tokens: int) -> None:
    documents.UNIT_BYTES = unit_bytes
    prepare_module.RUN_TOKENS = run_tokens
    spill.BUCKET_TOKENS = bucket_tokens


def kill_at_sync(number: int) -> None:
    """Die like `kill -9` at the given fsync: before or after every rename there is one."""
    sync, count = os.fsync, 0

    def counted(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = counted


def byte_tokenizer(
    factory: Callable[[], Any] = byte_encoder.make_encode, fingerprint: str = "bytes"
) -> CorpusTokenizer:
    return CorpusTokenizer(
        encoder_factory=factory,
        vocab_size=256,
        special_token_ids=SPECIAL,
        fingerprint=fingerprint,
    )


def work(options: dict[str, Any]) -> int:
    """Prepare, or one share with `share` = [task, num_tasks]; the number of documents."""
    inputs = [Path(path) for path in options["inputs"]]
    arguments: dict[str, Any] = {
        "tokenizer": byte_tokenizer(getattr(byte_encoder, options.get("encoder", "make_encode"))),
        "settings": PrepareSettings(**options.get("settings", {})),
        "workers": options.get("workers", 1),
    }
    if "share" in options:
        task, num_tasks = options["share"]
        shared = prepare_share(
            inputs, options["output"], task=task, num_tasks=num_tasks, **arguments
        )
        return shared.num_documents
    return prepare(inputs, options["output"], **arguments).train.num_documents


def main() -> None:
    options = json.loads(sys.argv[1])
    use_limits(**options.get("limits", SMALL))
    if number := options.get("kill_at_sync"):
        kill_at_sync(number)
    if num_bytes := options.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        documents = work(options)
    except ModernBertError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"documents": documents, "kilobytes": grown}))


SMALL = {"unit_bytes": 3000, "run_tokens": 700, "bucket_tokens": 1500}

if __name__ == "__main__":
    main()
