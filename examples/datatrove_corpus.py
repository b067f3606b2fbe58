"""A corpus filtered, freed of near-duplicates and tokenized with datatrove, for shards.

    python examples/datatrove_corpus.py raw work --tokenizer tokenizer --tasks 8
    modernbert prepare work/tokens shards --tokenizer tokenizer --from-datatrove

`raw` holds Parquet files with a column `text`, as many as tasks or more. Everything runs in
processes of this machine; on Slurm take datatrove's `SlurmPipelineExecutor` with the same steps.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

_WORD = re.compile(r"\w+")


class Words(WordTokenizer):
    """Words by a pattern, for near-duplicates of any language that writes spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def is_prose(document: Document) -> bool:
    """Whether a document is long enough, mostly letters, and does not repeat its lines."""
    text = document.text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    letters = sum(character.isalpha() or character.isspace() for character in text)
    return (
        len(_WORD.findall(text)) >= 20
        and letters >= 0.7 * len(text)
        and len(set(lines)) >= 0.7 * len(lines)
    )


def run(raw: Path, work: Path, tokenizer: Path, tasks: int = 1, workers: int = 1) -> None:
    """Every stage in its turn; what an earlier call has finished is not done again.

    tokenizer: a folder with tokenizer.json.
    """
    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    kept, signatures, buckets = (str(work / name) for name in ("kept", "signatures", "buckets"))
    duplicates = str(work / "duplicates")
    stages: list[tuple[str, int, list[PipelineStep]]] = [
        (
            "filter",
            tasks,
            [
                ParquetReader(str(raw)),
                LambdaFilter(is_prose),
                ParquetWriter(kept),
            ],
        ),
        (
            "signatures",
            tasks,
            [ParquetReader(kept), MinhashDedupSignature(signatures, config, language=Words())],
        ),
        (
            "buckets",
            config.num_buckets,
            [MinhashDedupBuckets(signatures, buckets, config=config)],
        ),
        ("clusters", 1, [MinhashDedupCluster(buckets, duplicates, config=config)]),
        (
            "tokens",
            tasks,
            [
                ParquetReader(kept),
                MinhashDedupFilter(duplicates),
                DocumentTokenizer(
                    str(work / "tokens"),
                    str(tokenizer / "tokenizer.json"),
                    shuffle_documents=False,  # `modernbert prepare` does, over all files
                ),
            ],
        ),
    ]
    for name, count, pipeline in stages:
        LocalPipelineExecutor(
            pipeline, tasks=count, workers=workers, logging_dir=str(work / "logs" / name)
        ).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="folder of Parquet files")
    parser.add_argument("work", type=Path, help="folder to work in")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--tasks", type=int, default=1, help="shares of the corpus")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    run(options.raw, options.work, options.tokenizer, options.tasks, options.workers)


if __name__ == "__main__":
    main()
