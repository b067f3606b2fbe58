"""Claim: `Embedder.encode` has at least twice the throughput of the best peer in float32.

    python -m benchmarks.inference.embedding DATA

In `auto` precision, that is; and 1.2 times that of the best peer in any precision whose vectors
have a cosine of 0.99 with those of float32.

DATA is the folder of real corpora: sentences, abstracts and reviews come in random order.
Tokenizing, sorting, padding, pooling and normalising are timed with the rest. ONNX Runtime and
OpenVINO get that from here, as a program around them would do it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import command, exports, peers
from benchmarks.engines import Precision
from benchmarks.models import Model
from benchmarks.serving.texts import model_folder, ragged_texts
from benchmarks.timing import best_batch_size, interleave, speedup
from modernbert.inference.embedder import Embedder
from modernbert.model.choices import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

REFERENCE = "sentence-transformers float32"
COSINE_FROM = 0.99


Encode = Callable[[list[str], int], Any]
"""Texts and a batch size to unit vectors, (texts, hidden_size) float32."""

_BATCH_SIZES = (1, 4, 16)


def ours(model: Model, precision: PrecisionChoice) -> Encode:
    """`Embedder`, which chooses its batches by itself."""
    embedder = Embedder.from_pretrained(model.folder, precision=precision)
    return lambda texts, _: embedder.encode(texts, normalize_embeddings=True)


def sentence_transformers(model: Model, precision: Precision) -> Encode:
    """Its `encode`, with weights in that precision."""
    from sentence_transformers import SentenceTransformer

    kwargs = {"dtype": getattr(torch, precision)}
    loaded = SentenceTransformer(str(model.folder), device="cpu", model_kwargs=kwargs)
    return lambda texts, batch_size: loaded.encode(
        texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
    )


def fastembed(model: Model, num_threads: int) -> Encode:
    """Its `embed` of a custom local model, with mean pooling."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder, name = model.cache / "fastembed", f"benchmark/{model.cache.name}"
    folder.mkdir(exist_ok=True)
    for file in (*model.folder.glob("*.json"), exports.onnx_file(model)):
        (folder / file.name).unlink(missing_ok=True)
        if file.name != "modules.json":
            (folder / file.name).symlink_to(file.resolve())
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=model.config.hidden_size,
        model_file="model.onnx",
    )
    loaded = TextEmbedding(name, threads=num_threads, specific_model_path=str(folder))
    return lambda texts, batch_size: np.stack(list(loaded.embed(texts, batch_size)))


def runtime(model: Model, num_threads: int, name: str) -> Encode:
    """ONNX Runtime or OpenVINO, sorted by length, padded, averaged and normalised here."""
    engine = peers.build(name, model, num_threads)
    tokenizer = Tokenizer.from_pretrained(model.folder)

    def encode(texts: list[str], batch_size: int) -> Any:
        states = engine(tokenizer.encode_batch(texts), batch_size)
        means: Tensor = torch.stack([each.float().mean(0) for each in states])
        return torch.nn.functional.normalize(means).numpy()

    return encode


def builders(model: Model, num_threads: int) -> dict[str, Callable[[], Encode]]:
    """Everyone, ours first."""
    choices: tuple[PrecisionChoice, ...] = ("auto", "float32", "int8")
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    return {
        **{f"ours {choice}": partial(ours, model, choice) for choice in choices},
        **{
            f"sentence-transformers {precision}": partial(sentence_transformers, model, precision)
            for precision in precisions
        },
        "fastembed float32": partial(fastembed, model, num_threads),
        **{name: partial(runtime, model, num_threads, name) for name in peers.RUNTIMES},
    }


def measure(
    encodings: Mapping[str, Encode], texts: list[str], num_tokens: int, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Of everyone the quality, the batch size that was fastest in a trial, and the speed."""
    few = texts[: max(1, len(texts) // 3)]
    turns: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, encode in encodings.items():
        encode(few[:2], 1)  # to warm up
        choices = (1,) if name.startswith("ours") else _BATCH_SIZES
        size = best_batch_size(partial(encode, few), choices)
        turns[name] = partial(encode, texts, size)
        rows[name] = {"precision": name.split()[1], "batch_size": size}
    vectors = {name: np.asarray(turn()) for name, turn in turns.items()}
    times = interleave(
        turns,
        rounds=options.rounds,
        budget_seconds=options.seconds,
        clock=command.clock(options),
    )
    for name, row in rows.items():
        row["min_cosine"] = float((vectors[name] * vectors[REFERENCE]).sum(1).min())
        row["largest_difference"] = float(np.abs(vectors[name] - vectors[REFERENCE]).max())
        row["seconds"] = times[name]
        row["tokens_per_second"] = num_tokens / median(times[name])
    return rows


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Our `auto` over the best peer in float32, and over the best whose vectors are good enough."""
    theirs = {name: row for name, row in rows.items() if not name.startswith("ours")}
    groups = {
        "float32": [name for name, row in theirs.items() if row["precision"] == "float32"],
        "any": [name for name, row in theirs.items() if row["min_cosine"] >= COSINE_FROM],
    }
    found = {}
    for group, names in groups.items():
        best = max(names, key=lambda name: float(rows[name]["tokens_per_second"]))
        ratio = speedup(rows["ours auto"]["seconds"], rows[best]["seconds"])
        found[group] = {"best_peer": best, "speedup": ratio}
    return found


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Everyone who can be built, and why the others cannot."""
    folder = model_folder(options.data, size="base", num_layers=options.layers, cache=options.cache)
    cache = options.cache / f"{folder.name}-exports"
    cache.mkdir(parents=True, exist_ok=True)
    model = Model(folder=folder, description=f"{folder.name}, random weights", cache=cache)
    texts = ragged_texts(options.data, count=options.texts)
    lengths = [len(ids) for ids in Tokenizer.from_pretrained(folder).encode_batch(texts)]
    makers = builders(model, options.threads)
    names = options.only.split(",") if options.only else list(makers)
    encodings, absent = peers.built({name: makers[name] for name in names})
    rows = measure(encodings, texts, sum(lengths), options)
    for name, row in rows.items():
        speed, cosine = row["tokens_per_second"], row["min_cosine"]
        print(f"{name:32s} {speed:7.0f} tokens/s, cosine {cosine:.5f}")
    found = {"lengths": lengths, "absent": absent, "rows": rows, "summary": summary(rows)}
    print(*absent.items(), found["summary"], sep="\n")
    return {"model": model.description, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a line for each, and write them all."""
    made = command.parser(
        __doc__,
        rounds=3,
        seconds=600,
        layers=(int, "fewer than base has, for a quick look"),
        texts=(64, "how many"),
        only=(str, "some of them, by commas"),
    )
    made.add_argument("data", type=Path)
    command.measured("embedding", measure_all, made.parse_args(arguments))


if __name__ == "__main__":
    main()
