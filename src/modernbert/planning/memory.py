"""The memory of one process, counted from the tensors that the training step keeps.

The step is that of `training/trainer.py` with `tasks/pretraining/vocabulary_loss.py`: weights,
gradients and the averages of the optimizer in float32; under autocast each matrix once more in
bfloat16; of the activations what autograd keeps for the backward. Tests hold the activations equal
to autograd's own, byte by byte. What a CPU's allocator loses to gaps is measured, not counted.
"""

from dataclasses import dataclass, fields
from typing import Literal

from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.layout import MIN_BLOCK
from modernbert.planning.phase import Machine, Phase, num_matrix_parameters

Kernels = Literal["triton", "blocks", "native"]

_FLOAT = 4
_BFLOAT16 = 2
_OPTIMIZER_AVERAGES = 2
# StableAdamW on a GPU without its Triton kernels updates all tensors in one go, with three lists of
# results as large as the tensors; on a CPU one tensor at a time; the kernels keep none.
_OPTIMIZER_RESULTS = 3
# Rows of logits are widened to float32 at most this many bytes at a time; two such are alive.
_GPU_LOGITS_BLOCK = 2 << 27
# Assumed: a CUDA context with the libraries' own buffers, and Python with torch on a CPU.
_CUDA_PROGRAM = 600 << 20
_CPU_PROGRAM = 400 << 20
# Measured with glibc 2.36: in the forward, a buffer that is let go between two that stay is not
# taken again by the next of its size, which wants room for its alignment too. Its heap then grows
# by about this many bytes for each token, unit of width and layer, recomputed or not.
_CPU_GAPS = 8


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process at the peak of a step.

    Attributes:
        weights: Float32 weights, whole or the process's part of them.
        gradients: Their gradients, alike.
        optimizer: The optimizer's averages, alike; see `averages_bytes`.
        weight_copies: Copies in bfloat16, and with full sharding the layers that are gathered.
        activations: What the backward needs of one micro-batch.
        vocabulary: The logits in memory at a time, and the gradients that come with the loss.
        working: Results inside one layer's backward, which are let go at once.
        update: What the optimizer needs for its step; the four above are gone by then.
        program: What is there before the first tensor.
        gaps: What is lost between the buffers of a CPU's heap.
    """

    weights: int
    gradients: int
    optimizer: int
    weight_copies: int
    activations: int
    vocabulary: int
    working: int
    update: int
    program: int
    gaps: int

    @property
    def total(self) -> int:
        """The bytes at the peak, in the backward pass or in the update of the weights."""
        lasting = self.weights + self.gradients + self.optimizer + self.program + self.gaps
        backward = self.weight_copies + self.activations + self.vocabulary + self.working
        return lasting + max(backward, self.update)

    def as_mapping(self) -> dict[str, int]:
        """Return every part and the total, in bytes."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**parts, "total": self.total}


def plan_memory(phase: Phase, machine: Machine) -> Memory:
    """Count what each process of a machine holds.

    Raises:
        InputError: The chip lacks the precision.
    """
    config, tokens = phase.config, phase.micro_batch_tokens
    bfloat16 = machine.in_bfloat16(phase.precision)
    parameters = config.num_parameters(head=True)
    parts = machine.num_gpus if machine.sharded else 1
    own = -(-parameters // parts) * _FLOAT
    return Memory(
        weights=own,
        gradients=own,
        optimizer=averages_bytes(phase) // parts,
        weight_copies=_weight_copies(config, bfloat16) + _gathered(config, machine),
        activations=activation_bytes(
            config,
            tokens,
            kernels=kernels_of(machine, bfloat16=bfloat16),
            bfloat16=bfloat16,
            dropout=phase.dropout,
            recompute=machine.recompute,
        ),
        vocabulary=_vocabulary(phase, bfloat16=bfloat16, gpu=not machine.chip.is_cpu),
        working=_working(config, tokens, bfloat16=bfloat16),
        update=_update(phase, machine, own),
        program=_CPU_PROGRAM if machine.chip.is_cpu else _CUDA_PROGRAM,
        gaps=_gaps(config, tokens) if machine.chip.is_cpu else 0,
    )


def averages_bytes(phase: Phase) -> int:
    """Count the averages of a phase's optimizer: two of each tensor, and one of Muon's matrices."""
    averages = _OPTIMIZER_AVERAGES * phase.config.num_parameters(head=True)
    if phase.optimizer == "muon":
        averages -= num_matrix_parameters(phase.config)
    return _FLOAT * averages


def _update(phase: Phase, machine: Machine, own: int) -> int:
    """Count what the optimizer's step needs at its peak."""
    since_ampere = machine.chip.bfloat16_tflops is not None and not machine.chip.is_cpu
    at_once = _largest(phase.config) if machine.chip.is_cpu else own
    results = 0 if since_ampere else _OPTIMIZER_RESULTS * at_once
    if phase.optimizer != "muon":
        return results
    # Of the matrices that are taken in one go: twice in float32, and four results in bfloat16.
    alone = machine.chip.is_cpu or (machine.sharded and machine.num_gpus > 1)
    width, inner = phase.config.hidden_size, phase.config.intermediate_size
    largest = width * max(3 * width, 2 * inner) * (1 if alone else phase.config.num_layers)
    return max(results, (2 * _FLOAT + 4 * _BFLOAT16) * largest)


def kernels_of(machine: Machine, *, bfloat16: bool) -> Kernels:
    """Return what computes attention and GeGLU (Triton's with `varlen`): each keeps others."""
    if machine.chip.is_cpu:
        return "native"
    return "triton" if bfloat16 else "blocks"


def activation_bytes(
    config: EncoderConfig,
    tokens: int,
    *,
    kernels: Kernels,
    bfloat16: bool,
    dropout: bool = True,
    recompute: bool = False,
) -> int:
    """Count what the backward through the encoder needs of a micro-batch.

    Args:
        config: The numbers of the model.
        tokens: Tokens of the micro-batch.
        kernels: The attention in use.
        bfloat16: Whether autocast is on.
        dropout: Whether there is dropout.
        recompute: Whether only the input of each layer is kept, and at any time the insides of one.
    """
    width = config.hidden_size
    layers = [
        _layer_bytes(config, kind, kernels, bfloat16=bfloat16, dropout=dropout)
        for kind in config.layer_kinds
    ]
    norm = _FLOAT * width + 2 * _FLOAT  # a norm keeps its input, and each row's mean and deviation
    # The norms of embedding and end; the first layer has no attention norm (P section 2.1.1). The
    # rotary tables of each kind of layer; the ids.
    around = norm + _FLOAT * config.head_size * len(set(config.layer_kinds)) + 8
    if recompute:
        size = _BFLOAT16 if bfloat16 else _FLOAT  # of what is still to be added to the stream
        inputs = _FLOAT * width * config.num_layers + size * width * (config.num_layers - 1)
        return tokens * (around + inputs + max(layers))
    return tokens * (around + sum(layers))


def _layer_bytes(
    config: EncoderConfig, kind: LayerKind, kernels: Kernels, *, bfloat16: bool, dropout: bool
) -> int:
    """Count a token's bytes in a layer: norms, attention, dropout's mask and the gated MLP."""
    size = _BFLOAT16 if bfloat16 else _FLOAT
    width, glu = config.hidden_size, config.intermediate_size
    norms = 2 * (_FLOAT * width + 2 * _FLOAT) + 2 * size * width  # inputs, and outputs as operands
    # GeGLU keeps both halves and its result; torch's own the activated half too.
    mlp = size * glu * (4 if kernels == "blocks" else 3)
    mask = width if dropout else 0  # a byte an entry
    sums = _FLOAT * config.num_heads  # one a row and head
    return norms + _attention_bytes(config, kind, kernels, size) + sums + mask + mlp


def _attention_bytes(config: EncoderConfig, kind: LayerKind, kernels: Kernels, size: int) -> int:
    width = config.hidden_size
    if kernels == "native":
        return 4 * size * width  # queries, keys, values, result
    if kernels == "triton":
        return 6 * size * width  # and queries and keys before they are rotated, beside the values
    if kind == "global":
        return 7 * size * width  # and the result once more, joined
    block = max(config.window, MIN_BLOCK)
    # Keys and values of three blocks each, queries, result, and the mask as numbers.
    return 8 * size * width + 3 * size * block


def _weight_copies(config: EncoderConfig, bfloat16: bool) -> int:
    """Count autocast's copies: every matrix once, that of the vocabulary only in the loss."""
    return _BFLOAT16 * config.num_parameters(head=True) if bfloat16 else 0


def _gathered(config: EncoderConfig, machine: Machine) -> int:
    """Count what full sharding gathers: embedding, head and two layers, and gradients."""
    if not machine.sharded or machine.num_gpus == 1:
        return 0
    width = config.hidden_size
    layer = 4 * width * width + 3 * width * config.intermediate_size
    return 2 * _FLOAT * (config.vocab_size * width + width * width + 2 * layer)


def _vocabulary(phase: Phase, *, bfloat16: bool, gpu: bool) -> int:
    config = phase.config
    size = _BFLOAT16 if bfloat16 else _FLOAT
    rows = round(phase.micro_batch_tokens * phase.mask_rate)
    logits = min(phase.max_logits_bytes, _FLOAT * rows * config.vocab_size) * size // _FLOAT
    block = min(_GPU_LOGITS_BLOCK, 2 * _FLOAT * rows * config.vocab_size) if gpu else 0
    gradient = _FLOAT * config.vocab_size * config.hidden_size  # of the decoder, until the end
    head = rows * config.hidden_size * (4 * _FLOAT + 3 * size)
    return logits + block + gradient + head


def _working(config: EncoderConfig, tokens: int, *, bfloat16: bool) -> int:
    """Count the gradients inside one MLP, and of the residual stream around it."""
    size = _BFLOAT16 if bfloat16 else _FLOAT
    return tokens * (5 * size * config.intermediate_size + 3 * _FLOAT * config.hidden_size)


def _gaps(config: EncoderConfig, tokens: int) -> int:
    return _CPU_GAPS * tokens * config.hidden_size * config.num_layers


def _largest(config: EncoderConfig) -> int:
    """Return the bytes of the largest parameter."""
    width = config.hidden_size
    return _FLOAT * width * max(config.vocab_size, 3 * width, 2 * config.intermediate_size)
