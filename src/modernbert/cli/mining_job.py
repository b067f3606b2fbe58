"""Hard negatives on their way to a file: vectors and rows are kept when the process is stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert.cli.embedding_job import EmbeddingJob
from modernbert.cli.job import LinesJob
from modernbert.cli.terminal import counted, tell
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
        """What computes the vectors of texts, as far as an earlier start has not."""

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
    """Everything that decides the rows, as JSON values."""
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
