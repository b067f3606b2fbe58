"""Exporting a model to GGUF, for llama.cpp and what is built on it.

    OUT/model-f16.gguf      weights, config and tokenizer in one file (f32, bf16 and q8_0 likewise)

llama.cpp has the architecture as `modern-bert`. It computes vectors of texts, and the outputs of
classifiers and rerankers by its pooling `rank`; it has no outputs for tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from modernbert.errors import ConfigError, ExportError
from modernbert.export.formats import FORMATS
from modernbert.export.quality import (
    Quality,
    largest_difference,
    measure_quality,
    megabytes,
    native_outputs,
    sample_texts,
)
from modernbert.export.source import ExportSource, open_source
from modernbert.extras import is_installed
from modernbert.files import updated_folder
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.reading import user_path
from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER

_RANK, _NONE = 4, 0

GgufPrecision = Literal["float32", "bfloat16", "float16", "q8_0"]

ARCHITECTURE = "modern-bert"
_SHORT: Mapping[str, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu", "silu": "silu"}
_POOLINGS = {"mean": 1, "cls": 2, "lasttoken": 3}
# llama.cpp computes GELU by the approximation with tanh, from a table in float16.
_TOLERANCE = 2e-2
_Q8_TOLERANCE = 1e-1

_NAMES = {
    "embeddings.tok_embeddings": "token_embd",
    "embeddings.norm": "token_embd_norm",
    "final_norm": "output_norm",
    "head.dense": "cls",
    "head.norm": "cls.norm",
    "classifier": "cls.output",
    "attn_norm": "attn_norm",
    "attn.Wqkv": "attn_qkv",
    "attn.Wo": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.Wi": "ffn_up",
    "mlp.Wo": "ffn_down",
}


class LlamaSession:
    """A file that llama.cpp runs on the CPU, a row at a time."""

    def __init__(self, file: Path, source: ExportSource) -> None:
        import llama_cpp

        self._library: Any = llama_cpp
        model: Any = source.model
        self._num_labels = len(model.labels) if model.is_of_texts else 0
        self._width, length = model.config.hidden_size, model.config.max_seqlen
        self._llama: Any = llama_cpp.Llama(
            str(file),
            embedding=True,
            n_ctx=length,
            n_batch=length,
            n_ubatch=length,
            n_threads=torch.get_num_threads(),
            pooling_type=_RANK if self._num_labels else _NONE,
            verbose=False,
        )

    def tokenize(self, text: str) -> list[int]:
        """Split a text as llama.cpp does."""
        ids: list[int] = self._llama.tokenize(text.encode(), add_bos=True, special=True)
        return ids

    def __call__(self, token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
        """Compute the output for ids and a mask of tokens, (rows, columns) each."""
        rows = [self._row(ids[mask]) for ids, mask in zip(token_ids, present.bool(), strict=True)]
        if self._num_labels:
            return [np.stack(rows)]
        padded = np.zeros((*token_ids.shape, self._width), dtype=np.float32)
        padded[present.bool().numpy()] = np.concatenate(rows)
        return [padded]

    def _row(self, ids: Tensor) -> np.ndarray:
        """Return (num_labels,) or (tokens, hidden_size)."""
        library, context = self._library, self._llama.ctx
        batch = library.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids.tolist()):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, True
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            failed = library.llama_encode(context, batch) != 0
        finally:
            library.llama_batch_free(batch)
        if failed:
            raise ExportError("llama.cpp cannot compute the file, which was not kept")
        if self._num_labels:
            values = library.llama_get_embeddings_seq(context, 0)
            return np.ctypeslib.as_array(values, (self._num_labels,)).copy()
        values = library.llama_get_embeddings(context)
        return np.ctypeslib.as_array(values, (len(ids), self._width)).copy()


@dataclass(frozen=True, kw_only=True)
class GgufReport:
    """What was written, and how llama.cpp's outputs compare with the model's.

    Attributes:
        folder: The folder that was written.
        file: The file in it, relative to the folder.
        kind: transformers' name of the model's class.
        precision: The precision of the matrices.
        num_tensors: The number of tensors, each of which was read back and compared.
        quality: How llama.cpp's outputs compare with the model's; None where llama-cpp-python is
            not installed.
        same_tokens: The number of texts that llama.cpp splits into the same tokens.
    """

    folder: Path
    file: Path
    kind: str
    precision: GgufPrecision
    num_tensors: int
    quality: Quality | None = None
    same_tokens: int | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.kind}: {self.folder / self.file}, {self.num_tensors} tensors read back"
        if self.quality is None:
            yield "not run: pip install llama-cpp-python to have llama.cpp's outputs compared"
            return
        yield (
            f"llama.cpp: {self.quality.measure} with the model {self.quality.mean:.4f} on average, "
            f"{self.quality.least:.4f} at least, over {self.quality.num_texts} texts; "
            f"{self.same_tokens} of them have the same tokens"
        )

    def content(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "file": self.file.as_posix()}


def export_gguf(
    folder_or_hub_id: Path | str,
    output: Path | str,
    *,
    precision: GgufPrecision = "float16",
    sample: Sequence[str] | None = None,
) -> GgufReport:
    """Write a GGUF file, read it back, and compare llama.cpp with the model where it is installed.

    Args:
        folder_or_hub_id: An encoder, an embedding model, a classifier of texts or a reranker.
        output: The folder to write to.
        precision: The precision of the matrices; vectors stay in float32.
        sample: The texts to compare on; by default, passages of Python's manual.

    Returns:
        What was written, with the measurements.

    Raises:
        ExportError: A package is missing, llama.cpp cannot represent the model, or the results
            differ.
        ConfigError: There is no such precision.
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
    """
    if precision not in get_args(GgufPrecision):
        expected = ", ".join(get_args(GgufPrecision))
        raise ConfigError(f"precision: got {precision!r}, expected one of {expected}")
    FORMATS["gguf"].require()
    source, target = open_source(folder_or_hub_id), user_path(output)
    _require_representable(source)
    name = Path(f"model-{_SHORT.get(precision, precision)}.gguf")
    quality, same_tokens = None, None
    with updated_folder(target, error=ExportError) as partial:
        _write(source, partial / name, precision)
        num_tensors = _read_back(source, partial / name)
        if is_installed("llama_cpp"):
            texts = sample_texts(sample)
            quality, same_tokens = _run(source, partial / name, precision, texts)
    return GgufReport(
        folder=target,
        file=name,
        kind=source.kind,
        precision=precision,
        num_tensors=num_tensors,
        quality=quality,
        same_tokens=same_tokens,
    )


def _require_representable(source: ExportSource) -> None:
    """Refuse what llama.cpp's `modern-bert` would compute otherwise, or not at all."""
    config, tokenizer = source.model.config, source.tokenizer
    definition = tokenizer.definition
    pre_tokenizer = definition.get("pre_tokenizer") or {}
    pooling = source.pooling if isinstance(source.pooling, str) else "+".join(source.pooling)
    problems = {
        "it has outputs for tokens": not source.model.is_of_texts
        and source.kind != "ModernBertModel",
        f"its pooling is {pooling}": pooling not in _POOLINGS,
        "it has layers after the pooling": _has_layers(source),
        "it has biases": config.attention_bias or config.mlp_bias or config.norm_bias,
        "its head has a bias": source.model.is_of_texts and config.head_bias,
        "its rotary positions are scaled": bool(config.global_scaling or config.local_scaling),
        f"its activation is {config.activation}": config.activation not in _ACTIVATIONS,
        f"its head's activation is {config.head_activation}": source.model.is_of_texts
        and not config.head_activation.startswith("gelu"),
        "its tokenizer does not split as GPT-2's": definition["model"].get("type") != "BPE"
        or {**BYTE_LEVEL, **pre_tokenizer} != {**pre_tokenizer, **BYTE_LEVEL},
        "its tokenizer changes texts first": definition.get("normalizer") not in (None, NORMALIZER),
        "its tokenizer puts other tokens around texts than [CLS] and [SEP]": (
            tuple(tokenizer.template.before),
            tuple(tokenizer.template.after),
        )
        != ((tokenizer.cls_token_id,), (tokenizer.sep_token_id,)),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise ExportError(f"{source.folder}: llama.cpp cannot represent it: {problem}")


def _has_layers(source: ExportSource) -> bool:
    from modernbert.kinds import read_modules

    return any(
        step.kind not in ("Transformer", "Pooling", "Normalize")
        for step in read_modules(source.folder)
    )


def _write(source: ExportSource, file: Path, precision: GgufPrecision) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(file, ARCHITECTURE)
    _add_config(writer, source, precision)
    _add_tokenizer(writer, source)
    for name, tensor in _tensors(source):
        _add_tensor(writer, name, tensor, precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: Any, source: ExportSource, precision: GgufPrecision) -> None:
    from gguf import LlamaFileType, PoolingType, RopeScalingType

    config: EncoderConfig = source.model.config
    types = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}
    writer.add_name(source.folder.name)
    writer.add_file_type(LlamaFileType[types.get(precision, "MOSTLY_Q8_0")])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seqlen)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_heads)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_causal_attention(False)
    writer.add_rope_freq_base(config.global_theta)
    writer.add_rope_freq_base_swa(config.local_theta)
    writer.add_rope_scaling_type(RopeScalingType.NONE)
    writer.add_sliding_window(2 * config.window)
    writer.add_sliding_window_pattern(_pattern(config))
    writer.add_string(f"{ARCHITECTURE}.hidden_activation", _ACTIVATIONS[config.activation])
    if source.model.is_of_texts:
        settings: Any = source.model.settings
        writer.add_pooling_type(PoolingType.RANK)
        writer.add_uint32(f"{ARCHITECTURE}.classifier.pooling_type", _POOLINGS[settings.pooling])
        writer.add_classifier_output_labels(list(settings.labels))
    else:
        assert isinstance(source.pooling, str)
        writer.add_pooling_type(PoolingType(_POOLINGS[source.pooling]))


def _pattern(config: EncoderConfig) -> int | list[bool]:
    """Return every how many layers one is global, or which layers are local."""
    for every in range(1, config.num_layers + 1):
        if layer_kinds(config.num_layers, global_every=every) == config.layer_kinds:
            return every
    return [kind == "local" for kind in config.layer_kinds]


def _add_tokenizer(writer: Any, source: ExportSource) -> None:
    from gguf import TokenType

    tokenizer, definition = source.tokenizer, source.tokenizer.definition
    size = source.model.config.vocab_size
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [TokenType.UNUSED] * size
    for token, index in definition["model"]["vocab"].items():
        tokens[index], types[index] = token, TokenType.NORMAL
    for added in definition["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    merges = definition["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(ARCHITECTURE)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_bos_token_id(tokenizer.cls_token_id)
    writer.add_eos_token_id(tokenizer.sep_token_id)
    writer.add_sep_token_id(tokenizer.sep_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_mask_token_id(tokenizer.mask_token_id)
    # A reranker reads [CLS] A [SEP] B [SEP]: a sep token would be a second one between them.
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)


def _tensors(source: ExportSource) -> Iterator[tuple[str, Tensor]]:
    """Yield the name in llama.cpp and the values of each parameter."""
    for own, tensor in source.model.state_dict().items():
        name, _, kind = own.removeprefix("encoder.").rpartition(".")
        if name.startswith("layers."):
            _, layer, name = name.split(".", 2)
            yield f"blk.{layer}.{_NAMES[name]}.{kind}", tensor.float()
        else:
            yield f"{_NAMES[name]}.{kind}", tensor.float()


def _add_tensor(writer: Any, name: str, tensor: Tensor, precision: GgufPrecision) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = _SHORT.get(precision, precision)
    if tensor.dim() == 1:
        kind = "f32"
    elif kind == "q8_0" and tensor.shape[-1] % 32:
        kind = "f16"  # blocks of 32 numbers have a scale each
    as_written = GGMLQuantizationType[kind.upper()]
    writer.add_tensor(name, quantize(tensor.numpy(), as_written), raw_dtype=as_written)


def _read_back(source: ExportSource, file: Path) -> int:
    """Compare each tensor of the file with the model's; return their number."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    found = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    for name, tensor in _tensors(source):
        values = dequantize(found[name].data, found[name].tensor_type)
        largest = float(tensor.abs().max())
        if (
            values.shape != tensor.shape
            or not np.abs(values - tensor.numpy()).max() <= largest / 128
        ):
            raise ExportError(f"{name}: was not written as it is: the file was not kept")
    return len(found)


def _run(
    source: ExportSource, file: Path, precision: GgufPrecision, texts: Sequence[str]
) -> tuple[Quality, int]:
    """Compare llama.cpp's outputs and tokens with ours; return how, and how many texts agree."""
    session = LlamaSession(file, source)
    tolerance = _Q8_TOLERANCE if precision == "q8_0" else _TOLERANCE
    largest_difference(session, source.model, tolerance=tolerance)
    num_bytes = 4 * sum(tensor.numel() for _, tensor in _tensors(source))
    sizes = round(num_bytes / 1e6, 1), megabytes(file)

    def exact(token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
        return native_outputs(source.model, token_ids, present)

    same = sum(session.tokenize(text) == list(source.tokenizer.encode(text)) for text in texts)
    return measure_quality(source, exact, session, texts, sizes), same
