"""Embed the texts of files with Ray Data, on all cores of a machine or of a cluster.

    pip install 'modernbert[ray]'
    python examples/ray_embed.py texts.parquet runs/retriever/model vectors --workers 2

The input is Parquet, CSV or JSON Lines, a file or a folder, also in object storage; the output a
folder of Parquet files with a column `vector`. Another worker takes the batches of one that dies.
"""

import argparse
from collections.abc import Sequence

import pyarrow
import ray

READERS = {"csv": ray.data.read_csv, "jsonl": ray.data.read_json, "json": ray.data.read_json}


class Embed:
    """A worker: it loads the model once and adds the vectors of one batch after another."""

    def __init__(self, model: str, text: str, threads: int) -> None:
        import torch

        from modernbert import Embedder

        torch.set_num_threads(threads)
        self.embedder, self.text = Embedder.from_pretrained(model), text

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The batch with its vectors."""
        vectors = self.embedder.encode(batch[self.text].to_pylist())
        column = pyarrow.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
        return batch.append_column("vector", column)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, embed and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input")
    parser.add_argument("model", help="a folder that all machines see, or an id of the hub")
    parser.add_argument("output")
    parser.add_argument("--text", default="text", help="the column of the texts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--batch-size", type=int, default=512, help="texts that are sent at once")
    options = parser.parse_args(arguments)
    read = READERS.get(options.input.rpartition(".")[2], ray.data.read_parquet)
    read(options.input).repartition(target_num_rows_per_block=options.batch_size).map_batches(
        Embed,
        fn_constructor_args=(options.model, options.text, options.threads),
        batch_size=options.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.threads / 2,  # the rest is for tasks that read and write files
    ).write_parquet(options.output)


if __name__ == "__main__":
    main()
