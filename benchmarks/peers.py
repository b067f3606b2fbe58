"""The peers, by name; each is built from the same model folder when it is asked for."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks import exports, restricted_peers, results
from benchmarks.engines import Encode, Sequences, ours, padded, precision_of
from benchmarks.models import Model
from benchmarks.workloads import Workload

E = TypeVar("E")

# Above so many columns an engine gives its scratch memory back after each batch: with several
# engines in one process the attention scores of each would not fit beside one another.
_MANY_COLUMNS = 2_048
_LEFT_OUT_WHEN_LONG = {
    "sentence-transformers": "its model is that of transformers",
    "fastembed": "it runs ONNX Runtime",
    "onnxruntime": "keeps the scores of all heads at once: 17 GB at 8,192 tokens",
    "openvino": "its CPU plugin ends the process at 8,192 tokens (2026.4.1); --peers tries again",
}
_NOT_RESTRICTED = ("onnxruntime", "openvino", "fastembed")


def engines_for(workload: Workload) -> list[str]:
    """Whoever has something to say about a workload, ours first.

    Nobody in bfloat16 where the CPU has no units for it: emulated it takes minutes.
    """
    narrow = () if results.has_bfloat16_units() else ("bfloat16", "autocast")
    absent = tuple(left_out(workload))
    return [name for name in BUILDERS if not name.endswith(narrow) and not name.startswith(absent)]


def left_out(workload: Workload) -> dict[str, str]:
    """Who is not asked, and why."""
    return dict(_LEFT_OUT_WHEN_LONG) if workload.is_long else {}


def not_restricted(names: Iterable[str]) -> list[str]:
    """Who does not keep to a restriction of the instructions, where there is one.

    ONNX Runtime asks the CPU itself and has no variable for it; OpenVINO's plugin goes on offering
    bfloat16 under oneDNN's variable. `restricted_peers.py` keeps both to it.
    """
    if results.restriction() is None or restricted_peers.are_in_use():
        return []
    return [name for name in names if name.startswith(_NOT_RESTRICTED)]


def build(name: str, model: Model, num_threads: int) -> Encode:
    """One engine, ready to encode.

    Raises:
        KeyError: no such name.
        ImportError: the peer is not installed.
    """
    return BUILDERS[name](name, model, num_threads)


def built(makers: Mapping[str, Callable[[], E]]) -> tuple[dict[str, E], dict[str, str]]:
    """What can be built, and why the rest cannot."""
    found: dict[str, E] = {}
    absent: dict[str, str] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Exception as error:  # whatever another library raises
            absent[name] = reason(error)
    return found, absent


def reason(error: Exception) -> str:
    """The kind of an error and its first line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:200]


def _ours(name: str, model: Model, _: int) -> Encode:
    return ours(model, precision_of(name))  # it takes torch's threads, as transformers does


def _transformers(name: str, model: Model, _: int) -> Encode:
    from transformers import AutoModel

    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    read = AutoModel.from_pretrained(model.folder, attn_implementation="sdpa", dtype=dtype).eval()

    @torch.inference_mode()
    def run(ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("autocast")):
            states: Tensor = read(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    return padded(run)


def _onnxruntime(
    _: str, model: Model, num_threads: int, *, file: Callable[[Model], Path]
) -> Encode:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    # Its threads would go on spinning while the next engine is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file(model), options, ["CPUExecutionProvider"])
    frugal = onnxruntime.RunOptions()
    frugal.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        chosen = frugal if ids.shape[1] > _MANY_COLUMNS else None
        return torch.from_numpy(session.run(None, inputs, chosen)[0])

    return padded(run)


def _openvino(
    name: str, model: Model, num_threads: int, *, file: Callable[[Model], Path]
) -> Encode:
    import openvino

    precision = precision_of(name)
    narrow = precision != "float32" and results.has_bfloat16_units()  # or what int8 leaves over
    settings = {
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": "bf16" if narrow else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(file(model), "CPU", settings)
    request = compiled.create_infer_request()

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        request.infer([ids.numpy(), mask.numpy()])
        states = torch.from_numpy(request.get_output_tensor(0).data.copy())
        if ids.shape[1] > _MANY_COLUMNS:
            compiled.release_memory()
        return states

    return padded(run)


def _sentence_transformers(_: str, model: Model, __: int) -> Encode:
    """Sorting by length and padding as its `encode` does; ids go in as words that stand for them.

    The look-up of the words takes less than a hundredth of the time.
    """
    from sentence_transformers import SentenceTransformer, models

    words = models.Transformer(str(_with_words(model)), max_seq_length=8_192)
    pooling = models.Pooling(model.config.hidden_size, pooling_mode="mean")
    loaded = SentenceTransformer(modules=[words, pooling], device="cpu")

    def encode(sequences: Sequences, batch_size: int | None) -> list[Tensor]:
        embeddings = loaded.encode(
            _as_texts(sequences),
            batch_size=batch_size or len(sequences),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return list(embeddings)

    return encode


def _fastembed(_: str, model: Model, num_threads: int) -> Encode:
    """A custom local model; batches as they come, padded to their longest."""
    loaded = fastembed_model(model, _with_words(model, onnx=True), num_threads)

    def encode(sequences: Sequences, batch_size: int | None) -> list[Tensor]:
        embeddings = loaded.embed(_as_texts(sequences), batch_size or len(sequences))
        return [torch.from_numpy(embedding) for embedding in embeddings]

    return encode


def fastembed_model(
    model: Model, folder: Path, num_threads: int, *, normalization: bool = False
) -> Any:
    """Load a local folder with a tokenizer and a model.onnx into fastembed, with mean pooling."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    known = f"benchmark/{model.cache.name}-{folder.name}"
    if known not in {each["model"] for each in TextEmbedding.list_supported_models()}:
        TextEmbedding.add_custom_model(
            model=known,
            pooling=PoolingType.MEAN,
            normalization=normalization,
            sources=ModelSource(hf=known),
            dim=model.config.hidden_size,
            model_file="model.onnx",
        )
    return TextEmbedding(known, threads=num_threads, specific_model_path=str(folder))


def link_files(folder: Path, files: Iterable[Path]) -> None:
    """Have a folder name files that lie elsewhere, in place of those that it named before."""
    folder.mkdir(exist_ok=True)
    for file in files:
        link = folder / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())


def _as_texts(sequences: Sequences) -> list[str]:
    return [" ".join(map(str, sequence)) for sequence in sequences]


def _with_words(model: Model, *, onnx: bool = False) -> Path:
    """The model's folder with a tokenizer whose words are the ids themselves."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = model.cache / ("words-onnx" if onnx else "words")
    folder.mkdir(exist_ok=True)
    vocabulary = {str(index): index for index in range(model.config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="0",
        unk_token="0",
        model_max_length=8_192,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    files = [model.folder / "config.json"]
    files += [exports.onnx_file(model)] if onnx else [model.folder / "model.safetensors"]
    link_files(folder, files)
    return folder


BUILDERS: Mapping[str, Callable[[str, Model, int], Encode]] = {
    **dict.fromkeys(("ours float32", "ours bfloat16", "ours int8"), _ours),
    "transformers float32": _transformers,
    "transformers bfloat16": _transformers,
    "transformers autocast": _transformers,
    "sentence-transformers float32": _sentence_transformers,
    "fastembed float32": _fastembed,
    "onnxruntime float32": partial(_onnxruntime, file=exports.onnx_file),
    "onnxruntime int8": partial(_onnxruntime, file=exports.onnx_int8_file),
    "openvino float32": partial(_openvino, file=exports.onnx_file),
    "openvino bfloat16": partial(_openvino, file=exports.onnx_file),
    "openvino int8": partial(_openvino, file=exports.openvino_int8_weights),
    "openvino int8 static": partial(_openvino, file=exports.openvino_int8_static),
}
RUNTIMES = [name for name in BUILDERS if name.startswith(("onnxruntime", "openvino"))]
