"""The peers, by name; each is built from the same model folder when it is asked for."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks import exports, restricted_peers, results
from benchmarks.engines import Engine, Ours, Padded, Precision, Sequences
from benchmarks.models import Model, draw_weights
from benchmarks.workloads import Workload

Builder = Callable[[Model, int], Engine]
E = TypeVar("E")

# Above so many columns an engine gives its scratch memory back after each batch: with several
# engines in one process the attention scores of each would not fit beside one another.
_MANY_COLUMNS = 2_048
_LEFT_OUT_WHEN_LONG = {
    "sentence-transformers": "its model is that of transformers",
    "fastembed": "it runs ONNX Runtime",
    "onnxruntime": "keeps the scores of all heads at once: 17 GB at 8,192 tokens",
    "openvino": "its CPU plugin ends the process at 8,192 tokens (2026.4.1); --peers tries again",
    "bert": "its positions end at 512",
}
_BERT_LAYERS_EACH = 12 / 22  # BERT-base has 12 layers where ModernBERT-base has 22


def engines_for(workload: Workload) -> list[str]:
    """Whoever has something to say about a workload, ours first.

    Nobody in bfloat16 where the CPU has no units for it: emulated it takes minutes.
    """
    names = [*OURS, *TRANSFORMERS]
    if not workload.is_long:  # benchmarks/README.md says why not the others
        names += [*TEXT_LIBRARIES, *RUNTIMES, *BERT]
    narrow = () if results.has_bfloat16_units() else ("bfloat16", "autocast")
    return [name for name in names if not name.endswith(narrow)]


RUNTIMES_BY_THEMSELVES = ("onnxruntime", "openvino", "fastembed")


def not_restricted(names: Iterable[str]) -> list[str]:
    """Who does not keep to a restriction of the instructions, where there is one.

    ONNX Runtime asks the CPU itself and has no variable for it; OpenVINO's plugin goes on offering
    bfloat16 under oneDNN's variable. `restricted_peers.py` keeps both to it.
    """
    if results.restriction() is None or restricted_peers.are_in_use():
        return []
    return [name for name in names if name.startswith(RUNTIMES_BY_THEMSELVES)]


def left_out(workload: Workload) -> dict[str, str]:
    """Who is not asked, and why."""
    return dict(_LEFT_OUT_WHEN_LONG) if workload.is_long else {}


def build(name: str, model: Model, num_threads: int) -> Engine:
    """One engine, ready to encode.

    Raises:
        KeyError: no such name.
        ImportError: the peer is not installed.
    """
    return BUILDERS[name](model, num_threads)


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


def _ours(model: Model, num_threads: int, *, name: str, precision: Precision) -> Engine:
    del name, num_threads  # it has its own name and takes torch's threads
    return Ours(model, precision)


def _transformers(
    model: Model, num_threads: int, *, name: str, dtype: torch.dtype, autocast: bool = False
) -> Engine:
    del num_threads  # torch's own
    from transformers import AutoModel

    read = AutoModel.from_pretrained(model.folder, attn_implementation="sdpa", dtype=dtype)
    precision: Precision = "bfloat16" if autocast or dtype is torch.bfloat16 else "float32"
    return Padded(name=name, precision=precision, run=_torch_run(read.eval(), autocast))


def _torch_run(module: Any, autocast: bool) -> Callable[[Tensor, Tensor], Tensor]:
    @torch.inference_mode()
    def run(ids: Tensor, mask: Tensor) -> Tensor:
        context: AbstractContextManager[object] = nullcontext()
        if autocast:
            context = torch.autocast("cpu", torch.bfloat16)
        with context:
            states: Tensor = module(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    return run


def _bert(model: Model, num_threads: int, *, name: str, dtype: torch.dtype) -> Engine:
    """BERT-base's widths, with as large a part of its layers as the model has of its own."""
    del num_threads
    from transformers import BertConfig, BertModel

    config = BertConfig(
        num_hidden_layers=round(model.config.num_layers * _BERT_LAYERS_EACH),
        max_position_embeddings=1_024,
    )
    module: nn.Module = draw_weights(BertModel(config, add_pooling_layer=False))
    precision: Precision = "bfloat16" if dtype is torch.bfloat16 else "float32"
    return Padded(name=name, precision=precision, run=_torch_run(module.eval().to(dtype), False))


def _onnxruntime(
    model: Model,
    num_threads: int,
    *,
    name: str,
    precision: Precision,
    file: Callable[[Model], Path],
) -> Engine:
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

    return Padded(name=name, precision=precision, run=run)


def _openvino(
    model: Model,
    num_threads: int,
    *,
    name: str,
    precision: Precision,
    file: Callable[[Model], Path],
    hint: str,
) -> Engine:
    import openvino

    if hint == "bf16" and not results.has_bfloat16_units():
        hint = "f32"  # what int8 leaves over
    settings = {
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": hint,
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

    return Padded(name=name, precision=precision, run=run)


class _SentenceTransformers:
    """Sorting by length and padding as its `encode` does; ids go in as words that stand for them.

    The look-up of the words takes less than a hundredth of the time.
    """

    name = "sentence-transformers float32"
    precision: Precision = "float32"

    def __init__(self, model: Model, num_threads: int) -> None:
        del num_threads
        from sentence_transformers import SentenceTransformer, models

        words = models.Transformer(str(_with_words(model)), max_seq_length=8_192)
        pooling = models.Pooling(model.config.hidden_size, pooling_mode="mean")
        self._model = SentenceTransformer(modules=[words, pooling], device="cpu")

    def encode(self, sequences: Sequences, batch_size: int | None) -> list[Tensor]:
        """(hidden_size,) float32 of each: the mean of its hidden states."""
        embeddings = self._model.encode(
            _as_texts(sequences),
            batch_size=batch_size or len(sequences),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return list(embeddings)


class _Fastembed:
    """A custom local model; batches as they come, padded to their longest."""

    name = "fastembed float32"
    precision: Precision = "float32"

    def __init__(self, model: Model, num_threads: int) -> None:
        self._model = fastembed_model(model, _with_words(model, onnx=True), num_threads)

    def encode(self, sequences: Sequences, batch_size: int | None) -> list[Tensor]:
        """(hidden_size,) float32 of each: the mean of its hidden states."""
        embeddings = self._model.embed(_as_texts(sequences), batch_size or len(sequences))
        return [torch.from_numpy(embedding) for embedding in embeddings]


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


OURS = ("ours float32", "ours bfloat16", "ours int8")
TRANSFORMERS = ("transformers float32", "transformers bfloat16", "transformers autocast")
TEXT_LIBRARIES = ("sentence-transformers float32", "fastembed float32")
RUNTIMES = (
    "onnxruntime float32",
    "onnxruntime int8",
    "openvino float32",
    "openvino bfloat16",
    "openvino int8",
    "openvino int8 static",
)
BERT = ("bert float32", "bert bfloat16")


def _named(builder: Callable[..., Engine], name: str, **settings: Any) -> tuple[str, Builder]:
    return name, partial(builder, name=name, **settings)


def _runtime(name: str, file: Callable[[Model], Path], hint: str | None = None) -> tuple[str, Any]:
    """ONNX Runtime, or OpenVINO where there is a hint of the precision to compute in."""
    precision = next(word for word in ("float32", "bfloat16", "int8") if word in name)
    if hint is None:
        return _named(_onnxruntime, name, precision=precision, file=file)
    return _named(_openvino, name, precision=precision, file=file, hint=hint)


_static = partial(exports.openvino_int8_static, traced=False)
_static_traced = partial(exports.openvino_int8_static, traced=True)

_BUILDERS: tuple[tuple[str, Builder], ...] = (
    _named(_ours, "ours float32", precision="float32"),
    _named(_ours, "ours bfloat16", precision="bfloat16"),
    _named(_ours, "ours int8", precision="int8"),
    _named(_transformers, "transformers float32", dtype=torch.float32),
    _named(_transformers, "transformers bfloat16", dtype=torch.bfloat16),
    _named(_transformers, "transformers autocast", dtype=torch.float32, autocast=True),
    ("sentence-transformers float32", _SentenceTransformers),
    ("fastembed float32", _Fastembed),
    _runtime("onnxruntime float32", exports.onnx_file),
    _runtime("onnxruntime int8", exports.onnx_int8_file),
    _runtime("openvino float32", exports.onnx_file, "f32"),
    _runtime("openvino bfloat16", exports.onnx_file, "bf16"),
    _runtime("openvino int8", exports.openvino_int8_weights, "bf16"),
    _runtime("openvino int8 static", _static, "bf16"),
    _runtime("openvino traced float32", exports.openvino_traced, "f32"),
    _runtime("openvino traced bfloat16", exports.openvino_traced, "bf16"),
    _runtime("openvino traced int8 static", _static_traced, "bf16"),
    _named(_bert, "bert float32", dtype=torch.float32),
    _named(_bert, "bert bfloat16", dtype=torch.bfloat16),
)
BUILDERS: Mapping[str, Builder] = dict(_BUILDERS)
