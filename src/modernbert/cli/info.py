"""`modernbert info`: describes a model, data, a run, a recipe or this machine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.options import AsJson, argument, echo_json
from modernbert.cli.terminal import lines

if TYPE_CHECKING:
    import numpy as np

    from modernbert.kinds import Kind
    from modernbert.model.config import EncoderConfig
    from modernbert.tasks.pretraining.recipe import PhaseRecipe


_ROWS, _DEPTH, _COLUMNS = 512, 768, 2304  # 512 tokens through the first matrix of base
_SECONDS = 0.3


def describe_this_machine() -> dict[str, Any]:
    """Describe what this machine computes with, and the speeds that it reaches now."""
    import torch

    from modernbert.devices import best_device
    from modernbert.model.choices import choose_precision, describe_attention
    from modernbert.model.config import EncoderConfig
    from modernbert.model.native import loading
    from modernbert.training.log import describe_machine

    cpu = torch.device("cpu")
    machine, chosen = loading.this_machine(), loading.choice()
    known = frozenset().union(*(variant.features for variant in machine.variants()))
    precision, _ = choose_precision(EncoderConfig.preset("base"), "auto", cpu)
    loading.library()
    return {
        **describe_machine(cpu),
        "cpu_features": sorted(known & machine.features) or "none that the kernels use",
        "kernels": loading.describe(chosen).removeprefix("C kernels: "),
        "kernels_present": list(machine.objects) or "none",
        "kernels_usable": [variant.name for variant in machine.usable()] or "none",
        "precision_of_auto": precision,
        "attention_of_auto": describe_attention(best_device()),
        "gflops_of_a_core": _speeds(),
    }


def _speeds() -> list[dict[str, Any]]:
    """Of one product in each precision, by the package's kernels and by torch's, on one thread."""
    import torch

    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for precision in ("float32", "bfloat16", "int8"):
        products = {"ours": _our_product(precision), "torch": _torch_product(precision)}
        speeds = {name: _speed(product) for name, product in products.items()}
        found.append({"precision": precision, **speeds})
    torch.set_num_threads(threads)
    return found


def _speed(product: Callable[[], object] | None) -> int | str:
    """In 10^9 operations a second; the best of a third of a second of this thread's CPU time."""
    if product is None:
        return "none"
    best, began = float("inf"), time.thread_time()
    while time.thread_time() - began < _SECONDS:
        started = time.thread_time()
        product()
        best = min(best, time.thread_time() - started)
    return round(2 * _ROWS * _DEPTH * _COLUMNS / best / 1e9)


def _our_product(precision: Any) -> Callable[[], object] | None:
    import torch

    from modernbert.model.config import EncoderConfig
    from modernbert.model.native.engine import PackedWeights, supports

    if not supports(EncoderConfig.preset("base"), precision):
        return None
    weights = PackedWeights.pack(torch.randn(_COLUMNS, _DEPTH), precision)
    rows = torch.randn(_ROWS, _DEPTH)
    return lambda: weights.multiply(rows)


def _torch_product(precision: Any) -> Callable[[], object] | None:
    import torch

    if precision == "int8":  # torch's own is for tests: on some CPUs it takes seconds
        return None
    dtype = getattr(torch, precision)
    rows = torch.randn(_ROWS, _DEPTH, dtype=dtype)
    weight = torch.randn(_COLUMNS, _DEPTH, dtype=dtype)
    return lambda: torch.nn.functional.linear(rows, weight)


def info(
    path: Annotated[
        Path | None,
        argument(
            "PATH", "A folder of a model, a tokenizer, shards, an index or a run; or a recipe."
        ),
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Describe the CPU, the kernels in use and their measured speeds instead.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a model, tokenizer, data, index, run, recipe or machine."""
    if (path is None) is not machine:
        raise typer.BadParameter("give either a PATH or --machine")
    description = describe_this_machine() if path is None else describe(path)
    if as_json:
        echo_json(description)
    else:
        typer.echo("\n".join(lines(description)))


Description = dict[str, Any]

_FLOPS_LENGTHS = (512, 1024, 8192)
_FORWARDS_A_STEP = 3  # a backward costs as much as two
_PERCENTILES = (5, 25, 50, 75, 95, 99)
_FIRST_LENGTH_BORDER = 128
_LAST_LENGTH_BORDER = 8192


def describe(path: Path) -> Description:
    """Tell what a folder, or a file, holds.

    Raises:
        ModernBertError: Nothing is there, nothing that is known, or something broken.
    """
    from modernbert.kinds import kind_of

    kind = kind_of(path)
    return _DESCRIPTIONS.get(kind, describe_model)(path)


def describe_recipe(path: Path) -> Description:
    """Describe a recipe: its resolved settings, the size of its model and the cost of training."""
    from modernbert.errors import TokenizerError
    from modernbert.settings import load, to_mapping
    from modernbert.tasks.pretraining.data import model_config
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe
    from modernbert.tokenizer.tokenizer import Tokenizer

    recipe = load(PretrainingRecipe, path)
    note: Description = {}
    try:
        tokenizer = Tokenizer.from_pretrained(recipe.tokenizer)
    except TokenizerError as error:
        tokenizer = None
        note = {"tokenizer": f"{error}; sizes as with the published vocabulary"}
    configs = [model_config(phase, tokenizer) for phase in recipe.phases]
    training = {
        phase.name: describe_training(phase, config)
        for phase, config in zip(recipe.phases, configs, strict=True)
    }
    return {
        "kind": "recipe",
        **note,
        "model": describe_config(configs[-1]),
        "training": training if len(training) > 1 else training[recipe.phases[0].name],
        "settings": to_mapping(recipe),
    }


def describe_training(phase: "PhaseRecipe", config: "EncoderConfig") -> Description:
    """Describe the steps and the arithmetic of a phase whose sequences are all of full length."""
    from modernbert.model.config import flops_per_token

    bin_tokens, total_tokens = phase.packing.bin_tokens, phase.training.total_tokens
    forward = flops_per_token(config, phase.packing.max_seqlen, masked_share=phase.predicted_share)
    flops = round(_FORWARDS_A_STEP * forward)
    return {
        "tokens_a_step": phase.batch.bins_per_step * bin_tokens,
        "steps": phase.batch.num_steps(total_tokens, bin_tokens),
        "flops_a_token": flops,
        "flops": flops * total_tokens,
    }


def describe_model(path: Path) -> Description:
    """Describe a model by its settings alone: its use, sizes, layers, parameters and FLOPs."""
    from modernbert.kinds import NAMES, model_kind, read_modules
    from modernbert.model.config import EncoderConfig
    from modernbert.model.config_file import read_config_file

    steps = read_modules(path)
    folder = path / steps[0].path if steps else path
    use: Description = {"use": NAMES[model_kind(path)]}
    if steps:
        use["steps"] = [step.kind for step in steps]
    if isinstance(labels := read_config_file(folder).get("id2label"), dict):
        use["labels"] = list(labels.values())
    return {"kind": "model", **use, **describe_config(EncoderConfig.from_pretrained(folder))}


def describe_config(config: "EncoderConfig") -> Description:
    """Describe the numbers of a model."""
    from modernbert.model.config import flops_per_token

    return {
        "parameters": config.num_parameters(head=False),
        "parameters_with_head": config.num_parameters(head=True),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.num_heads,
        "layers": config.num_layers,
        "layer_kinds": list(config.layer_kinds),
        "window": config.window,
        "global_theta": config.global_theta,
        "local_theta": config.local_theta,
        "longest_sequence": config.max_seqlen,
        "forward_flops_a_token": {
            str(length): round(flops_per_token(config, length)) for length in _FLOPS_LENGTHS
        },
    }


def describe_shards(path: Path) -> Description:
    """Describe a shard folder: its documents, tokens and lengths."""
    from modernbert.data.shards import ShardFolder

    folder = ShardFolder.open(path)
    return {
        "kind": "token shards",
        "shards": len(folder.shards),
        "documents": folder.num_documents,
        "tokens": folder.num_tokens,
        "vocab_size": folder.vocab_size,
        "tokenizer": folder.tokenizer_fingerprint,
        "fingerprint": folder.fingerprint,
        "tokens_a_document": _lengths([shard.offsets for shard in folder.shards]),
        "sources": [
            {"name": source.name, "documents": source.num_documents, "tokens": source.num_tokens}
            for source in folder.sources
        ],
    }


def _lengths(offsets: "list[np.ndarray]") -> Description:
    import numpy as np

    lengths = np.concatenate([np.diff(each).astype(np.int64) for each in offsets])
    percentiles = np.percentile(lengths, _PERCENTILES).round().astype(int).tolist()
    named = {f"{p}th_percentile": n for p, n in zip(_PERCENTILES, percentiles, strict=True)}
    return {
        "mean": round(float(lengths.mean()), 1),
        **named,
        "longest": int(lengths.max()),
        "documents_by_length": _histogram(lengths),
    }


def _histogram(lengths: "np.ndarray") -> dict[str, int]:
    """How many documents have up to 128, 256, ..., 8192 tokens, and how many have more."""
    counts, border, below = {}, _FIRST_LENGTH_BORDER, 0
    while border <= _LAST_LENGTH_BORDER:
        counts[f"{below + 1} to {border}"] = int(((lengths > below) & (lengths <= border)).sum())
        border, below = 2 * border, border
    counts[f"above {below}"] = int((lengths > below).sum())
    return counts


def describe_tokenizer(path: Path) -> Description:
    """Describe the sizes and the special tokens of a tokenizer's folder."""
    from modernbert.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(path)
    return {
        "kind": "tokenizer",
        "vocab_size": tokenizer.vocab_size,
        "longest_sequence": tokenizer.model_max_length,
        "fingerprint": tokenizer.fingerprint,
        "special_tokens": {tokenizer.id_to_token(i): i for i in tokenizer.special_token_ids},
    }


def describe_run(path: Path) -> Description:
    """Describe a run: how far it has come, and its last figures; of a sweep, its runs."""
    from modernbert.kinds import CONFIG_FILE, RUN_MODEL
    from modernbert.report.history import METRICS_FILE, RunHistory

    described: Description = {
        "kind": "run",
        "finished": (path / RUN_MODEL / CONFIG_FILE).is_file(),
        "model": str(path / RUN_MODEL),
    }
    if (path / METRICS_FILE).exists():
        history = RunHistory.read(path / METRICS_FILE)
        last = [history.last_step] if history.last_step else []
        described["last_step"] = _figures(last)
        described["last_evaluation"] = _figures(history.of_kind("evaluation"))
    elif runs := sorted(each.parent.name for each in path.glob(f"runs/*/{METRICS_FILE}")):
        described["runs"] = runs
    return described


def describe_index(path: Path) -> Description:
    """Describe a search index by its manifest, and by its segments if it was changed."""
    from dataclasses import asdict

    from modernbert.inference.index import Index
    from modernbert.inference.index_changes import IndexState
    from modernbert.inference.index_folder import IndexManifest

    state = IndexState.read(path)
    index = Index.open(path) if state.change else None
    said = asdict(IndexManifest.read(path) if index is None else index.manifest)
    names = {"count": "documents", "num_vectors": "vectors", "dim": "dimensions", "kind": "stored"}
    shown = {key: value for key, value in said.items() if key not in ("is_ragged", "format")}
    told = {names.get(key, key): value for key, value in shown.items()}
    if index is not None:
        told |= {"documents": len(index), "segments": len(state.segments), "changes": state.change}
    return {"kind": "search index", **told}


def describe_vectors(path: Path) -> Description:
    from modernbert.inference.index_files import read_vectors

    vectors = read_vectors(path)
    rows, dimensions = vectors.shape
    return {
        "kind": "vectors",
        "vectors": rows,
        "dimensions": dimensions,
        "dtype": str(vectors.dtype),
    }


def describe_checkpoint(path: Path) -> Description:
    """Describe a checkpoint: how far the run was, and how large its files are."""
    from modernbert.json_files import read_object

    progress = read_object(path / "progress.json")
    numbers = {key: value for key, value in progress.items() if isinstance(value, int | float)}
    sizes = {file.name: file.stat().st_size for file in sorted(path.iterdir())}
    return {"kind": "checkpoint", **numbers, "bytes": sizes}


def describe_evaluation(path: Path) -> Description:
    """Describe the results of `modernbert evaluate`."""
    from modernbert.errors import RunError
    from modernbert.json_files import read_object

    results = read_object(path / "results.json")
    try:
        scores = {str(task["name"]): task["score"] for task in results.get("tasks", [])}
    except (TypeError, LookupError):
        raise RunError(
            f"{path / 'results.json'}: tasks: expected a list of names with scores"
        ) from None
    return {
        "kind": "evaluation",
        "model": results.get("model"),
        "average": results.get("average"),
        "scores": scores,
    }


def _figures(rows: "list[Any]") -> Description:
    return {name: value for name, value in rows[-1].items() if name != "kind"} if rows else {}


_DESCRIPTIONS: "dict[Kind, Callable[[Path], Description]]" = {
    "recipe": describe_recipe,
    "shards": describe_shards,
    "tokenizer": describe_tokenizer,
    "run": describe_run,
    "index": describe_index,
    "vectors": describe_vectors,
    "checkpoint": describe_checkpoint,
    "evaluation": describe_evaluation,
}
