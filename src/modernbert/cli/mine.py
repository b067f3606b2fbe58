"""`modernbert mine`: finds hard negatives for training a retriever.

What was computed is kept when the process is stopped: the vectors, and a line for each row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.embedding_job import EmbeddingJob
from modernbert.cli.inference import Model, PrecisionOption, look_at, speed_of, warnings_told
from modernbert.cli.job import LinesJob, kept_when_stopped, require_unfinished
from modernbert.cli.options import AsJson, argument, echo_json, takes_settings
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.errors import InputError
from modernbert.files import remove_folder
from modernbert.settings import to_mapping
from modernbert.tasks.ranking.recipe import MiningSettings

if TYPE_CHECKING:
    import numpy as np

    from modernbert.inference.batching import Observer
    from modernbert.inference.embedder_folder import Side
    from modernbert.inference.retriever import Retriever
    from modernbert.tasks.ranking.data import RetrievalData
    from modernbert.tasks.ranking.mining import Vectors


_BLOCK_TEXTS = 4096


class MiningJob(LinesJob):
    """The rows so far, a line for each example that has one, and the vectors behind them."""

    def __init__(self, output: Path, description: Mapping[str, Any]) -> None:
        super().__init__(output, description)
        self._num_embeddings = self._num_texts_embedded = 0

    def vectors_of(self, retriever: "Retriever", observer: "Observer") -> "Vectors":
        """Return what computes the vectors of texts, as far as an earlier start has not."""

        def vectors(texts: Sequence[str], side: "Side") -> Iterator[list["np.ndarray"]]:
            self._num_embeddings += 1
            output = self.folder / f"{self._num_embeddings}-{side}.index"
            kept = EmbeddingJob(output, retriever.dim, {}, multi=True)
            with kept:
                self._embed(kept, retriever, texts, side, observer)
            yield from kept.blocks_of_texts(_BLOCK_TEXTS)

        return vectors

    def _embed(
        self,
        kept: EmbeddingJob,
        retriever: "Retriever",
        texts: Sequence[str],
        side: "Side",
        observer: "Observer",
    ) -> None:
        """Compute the vectors that are not kept yet."""
        import numpy as np

        from modernbert.inference.retriever import text_vectors

        if kept.num_done and not self.num_done:
            tell(f"{side}: going on after {counted(kept.num_done, 'text')}")
        before, first = self._num_texts_embedded, kept.num_done
        self._num_texts_embedded += first
        for block in text_vectors(retriever, texts[first:], side, on_progress=observer):
            lengths = np.array([[len(vectors)] for vectors in block], dtype=np.int64)
            kept.append([""] * len(block), np.concatenate(block), lengths)
            self._num_texts_embedded = before + kept.num_done
        kept.save()

    @property
    def told(self) -> str:
        """What of the work is kept, for a message."""
        embedded = f"{counted(self._num_texts_embedded, 'text')} embedded"
        return (
            f"{counted(self.num_saved, 'example')} with {embedded}" if self.num_saved else embedded
        )

    def add_row(self, row: Mapping[str, Any] | None) -> None:
        """Add the row of the next example; None for one that has none."""
        line = "" if row is None else json.dumps(row, ensure_ascii=False) + "\n"
        self.add([line.encode()])

    def finish(self, **_: Any) -> None:
        """Write the rows into the output, and count them.

        Raises:
            InputError: No example has negatives; nothing is kept then.
        """
        self.save()
        lines = (self.folder / self.lines_file).read_bytes().splitlines()
        self.num_rows = len(lines)
        self.num_negatives = sum(len(json.loads(line)["negatives"]) for line in lines)
        if not lines:
            remove_folder(self.folder)
            raise InputError("found no negatives; lower --margin and --skip, or raise --depth")
        super().finish()


def description_of(
    data: "RetrievalData",
    corpus: Sequence[str],
    settings: MiningSettings,
    model: str,
    teacher: str | None,
    precision: str,
) -> dict[str, Any]:
    """Return everything that decides the rows, as JSON values."""
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.model.config_file import find_model

    digest = sha256()
    for each in (*data.examples, *corpus):
        digest.update(repr(each).encode(errors="surrogatepass"))
    models = {"model": model, "teacher": teacher}
    fingerprints = {
        name: folder_fingerprint(find_model(each, weights=True)) if each else None
        for name, each in models.items()
    }
    return {
        "verb": "mine",
        "texts": digest.hexdigest(),
        "settings": json.loads(json.dumps(to_mapping(settings))),
        "precision": precision,
        **fingerprints,
    }


@takes_settings
def mine(
    rows: Annotated[
        str,
        argument(
            "ROWS",
            "Queries with documents that answer them: a file as `finetune retrieve` reads "
            "it, or a BEIR folder.",
        ),
    ],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT.jsonl", help="The file to write.", show_default=False
        ),
    ],
    settings: MiningSettings,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="More documents to search: a file with a column text.",
            show_default="those of ROWS alone",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="The split of a BEIR folder to take queries from.")
    ] = "train",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A reranker whose scores are added to each row, for distillation.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Find hard negatives for training a retriever.

    These are documents that the model, or BM25 with --by bm25, wrongly ranks among the answers. The
    output has rows of query, positive and negatives, which `finetune retrieve`, `finetune
    late-interaction` and `finetune rerank` read.
    """
    look_at(model)
    from modernbert.tasks.ranking.data import read_corpus, read_retrieval_data

    require_unfinished(output)
    data = read_retrieval_data(rows, split)
    texts = read_corpus(rows, data, split, more=corpus)
    from modernbert.inference.reranker import Reranker
    from modernbert.inference.retriever import load_retriever
    from modernbert.tasks.ranking.mining import rows_of_examples

    tell(f"{len(data.known):,} queries, {counted(len(texts), 'document')}")
    retriever = load_retriever(model, precision)
    scorer = None if teacher is None else Reranker.from_pretrained(teacher)
    description = description_of(data, texts, settings, model, teacher, precision)
    job = MiningJob(output, description)
    with Meter("embedding") as meter, warnings_told(), kept_when_stopped(job), job:
        if not job.is_complete:
            found = rows_of_examples(
                job.vectors_of(retriever, speed_of(meter)),
                data,
                texts,
                settings,
                teacher=scorer,
                first=job.num_done,
            )
            meter.restart("mining")
            for row in found:
                job.add_row(row)
                meter.update(job.num_done, len(data.examples), counted(job.num_done, "query"))
        job.finish()
    if as_json:
        echo_json({"output": str(output), "rows": job.num_rows, "negatives": job.num_negatives})
    else:
        negatives = counted(job.num_negatives, "negative")
        typer.echo(f"{output}: {counted(job.num_rows, 'row')} with {negatives}")
