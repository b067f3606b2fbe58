"""The peers, by name; each is built from the same model folder when it is asked for."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks import exports, restricted_peers, results
from benchmarks.engines import Encode, ours, padded, precision_of
from benchmarks.models import Model
from benchmarks.workloads import Workload

E = TypeVar("E")

# Above so many columns an engine gives its scratch memory back after each batch: with several
# engines in one process the attention scores of each would not fit beside one another.
_MANY_COLUMNS = 2_048
_LEFT_OUT_WHEN_LONG = {
    "onnxruntime": "keeps the scores of all heads at once: 17 GB at 8,192 tokens",
    "openvino": "its CPU plugin ends the process at 8,192 tokens (2026.4.1); --peers tries again",
}


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
    return [name for name in names if name in RUNTIMES]


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


BUILDERS: Mapping[str, Callable[[str, Model, int], Encode]] = {
    **dict.fromkeys(("ours float32", "ours bfloat16", "ours int8"), _ours),
    "transformers float32": _transformers,
    "transformers bfloat16": _transformers,
    "transformers autocast": _transformers,
    "onnxruntime float32": partial(_onnxruntime, file=exports.onnx_file),
    "onnxruntime int8": partial(_onnxruntime, file=exports.onnx_int8_file),
    "openvino float32": partial(_openvino, file=exports.onnx_file),
    "openvino bfloat16": partial(_openvino, file=exports.onnx_file),
    "openvino int8": partial(_openvino, file=exports.openvino_int8_weights),
    "openvino int8 static": partial(_openvino, file=exports.openvino_int8_static),
}
RUNTIMES = [name for name in BUILDERS if name.startswith(("onnxruntime", "openvino"))]
