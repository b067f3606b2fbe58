"""What all sections share: device and sizes, batches, models, a step of training, and timing."""

import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import results
from benchmarks.masked_step import masked_batch
from benchmarks.models import draw_weights
from modernbert.data.collate import MaskedBatch
from modernbert.model.choices import AttentionChoice, has_flash3, has_varlen
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.pretrain import masked_token_loss
from modernbert.training.computation import autocast
from modernbert.training.optimizer import StableAdamW, parameter_groups

Figures = dict[str, float | int | str]
Rows = dict[str, Figures]


class KeptRows(Rows):
    """Rows of a section that are written down as they come, as it may be stopped."""

    def __init__(self, keep: Callable[[Rows], None]) -> None:
        super().__init__()
        self._keep = keep

    def __setitem__(self, name: str, figures: Figures) -> None:
        super().__setitem__(name, figures)
        self._keep(self)


SIZES = ("base", "large")
MASKED_SHARE = 0.3
_SEED = 20_261_125
_FILLING = 3  # the id of the filling of a batch


@dataclass(frozen=True)
class Mix:
    """Lengths of N(mean, deviation) within 16 to `longest` (P section 4); all alike for 0."""

    longest: int
    mean: int
    deviation: int

    def lengths(self, total_tokens: int) -> list[int]:
        """As many as fit into so many tokens."""
        generator = np.random.default_rng(_SEED)
        lengths: list[int] = []
        while True:
            drawn = round(generator.normal(self.mean, self.deviation))
            length = min(max(drawn, 16), self.longest)
            if sum(lengths) + length > total_tokens:
                return lengths
            lengths.append(length)


MIXES: Mapping[str, Mix] = {
    "512 fixed": Mix(512, 512, 0),
    "512 ragged": Mix(512, 256, 64),
    "1024 fixed": Mix(1_024, 1_024, 0),
    "1024 ragged": Mix(1_024, 512, 256),
    "8192 fixed": Mix(8_192, 8_192, 0),
    "8192 ragged": Mix(8_192, 4_096, 1_024),
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how large.

    tiny: models and batches of a few seconds on a CPU, so that every section can be tried there.
    seconds: that one measurement is repeated for.
    sizes: the models that are measured, where they are not tiny.
    keep: is given the rows of a section whenever there is one more.
    """

    device: torch.device
    tiny: bool = False
    seconds: float = 2.0
    sizes: tuple[str, ...] = SIZES
    keep: Callable[[Rows], None] = lambda _: None

    @property
    def is_cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    def __post_init__(self) -> None:
        if self.tiny:
            object.__setattr__(self, "sizes", ("tiny",))

    @property
    def attentions(self) -> tuple[AttentionChoice, ...]:
        """The back ends that run here with gradients."""
        if not self.is_cuda:
            return ("auto", "blocks")
        flash: tuple[AttentionChoice, ...] = ("auto", "varlen") if has_varlen(self.device) else ()
        return (*flash, *(("flash3",) if has_flash3(self.device) else ()), "flex", "blocks")

    def rows(self) -> Rows:
        """None yet, of a section that begins."""
        return KeptRows(self.keep)

    def mixes(self, *names: str) -> dict[str, Mix]:
        """Some of the mixes, all when none is named; eight times shorter when tiny."""
        chosen = {name: MIXES[name] for name in names or MIXES}
        if not self.tiny:
            return chosen
        return {
            name: Mix(mix.longest // 8, mix.mean // 8, mix.deviation // 8)
            for name, mix in chosen.items()
        }

    def tokens(self, size: str) -> int:
        """Of one batch."""
        return {"tiny": 1_024, "base": 65_536, "large": 32_768}[size]

    def config(self, size: str) -> EncoderConfig:
        """The numbers of a size."""
        if size == "tiny":
            return EncoderConfig.preset(
                "tiny",
                layer_kinds=layer_kinds(2),
                vocab_size=512,
                unk_token_id=0,
                cls_token_id=1,
                sep_token_id=2,
                pad_token_id=3,
                mask_token_id=4,
            )
        return EncoderConfig.preset(size)

    def model(self, size: str, *, compiled: bool | None = None) -> MaskedLanguageModel:
        """Random weights in which every part matters; compiled on CUDA unless told otherwise."""
        with torch.device(self.device):
            model = MaskedLanguageModel(self.config(size))
        draw_weights(model.cpu())
        model.to(self.device)
        if self.is_cuda if compiled is None else compiled:
            model.encoder.compile_layers("inductor" if self.is_cuda else "eager")
        return model

    def sequences(self, lengths: Sequence[int], vocab_size: int) -> list[list[int]]:
        """Random ids, none of them special."""
        generator = np.random.default_rng(_SEED)
        return [generator.integers(5, vocab_size, length).tolist() for length in lengths]

    def batch(self, size: str, mix: Mix, total: int | None = None) -> MaskedBatch:
        """A filled-up batch of a mix on the device, with 30% of its tokens to predict."""
        total = total or self.tokens(size)
        vocab_size = self.config(size).vocab_size
        masked = masked_batch(mix.lengths(total), share=MASKED_SHARE, vocab_size=vocab_size)
        return masked.filled_up(total, max_seqlen=mix.longest, token_id=_FILLING).to(self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def time(self, call: Callable[[], object], *, warm_up: int = 3) -> float:
        """Seconds of a call, the device waited for: the median of five groups of calls.

        Of three single ones where a call takes long.
        """
        for _ in range(1 if self.tiny else warm_up):
            call()
        once = self._timed(call, 1)
        if self.tiny:
            return once
        if once > self.seconds / 3:
            return median([once, *(self._timed(call, 1) for _ in range(2))])
        repeats = max(1, round(self.seconds / 5 / max(once, 1e-6)))
        return median(self._timed(call, repeats) for _ in range(5))

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of one call, the device waited for."""
        return self._timed(call, 1)

    def _timed(self, call: Callable[[], object], repeats: int) -> float:
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        self.synchronize()
        return (time.perf_counter() - begin) / repeats


class TrainingStep:
    """Forward, backward and update of one batch, without a wait for the device."""

    def __init__(self, bench: Bench, model: MaskedLanguageModel, *, dropout: float = 0.1) -> None:
        self.bench, self.model, self.dropout = bench, model, dropout
        self.optimizer = StableAdamW(parameter_groups(model, 1e-5), peak_learning_rate=1e-4)
        self.num_steps = 0

    def __call__(self, batch: MaskedBatch) -> torch.Tensor:
        """The mean loss, still on the device."""
        self.num_steps += 1
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def loss(self, batch: MaskedBatch) -> torch.Tensor:
        """Of the forward alone."""
        keys = [(0, self.num_steps, each) for each in batch.bin_ids]
        drops = Dropout(self.dropout, keys=keys, num_tokens_each=batch.bin_tokens_each)
        with autocast(self.bench.device, "auto"):
            loss = masked_token_loss(self.model, batch, drops)
        return loss / batch.num_masked


def real_tokens(batch: MaskedBatch) -> int:
    """Without the filling."""
    return sum(batch.bin_tokens_each[:-1])


def theirs(bench: Bench, model: Any, kind: str, **settings: Any) -> Any:
    """A model of transformers with the weights of ours, on scaled dot-product attention.

    kind: the name of the class that reads it, such as `AutoModel`.
    """
    import transformers

    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        read = getattr(transformers, kind).from_pretrained(
            Path(folder) / "model", attn_implementation="sdpa", **settings
        )
    return read.to(bench.device)


def fastest(seconds: Callable[[int], float], choices: Sequence[int]) -> tuple[int, float]:
    """The choice that takes the least time, and its seconds; larger ones may not fit the memory."""
    tried: dict[int, float] = {}
    for choice in choices:
        try:
            tried[choice] = seconds(choice)
        except torch.OutOfMemoryError:
            break
    if not tried:
        raise torch.OutOfMemoryError(f"not even {choices[0]} texts fit the memory")
    best = min(tried, key=lambda choice: tried[choice])
    return best, tried[best]


def versions(bench: Bench) -> dict[str, Any]:
    """The GPU, its clocks and the versions."""
    found: dict[str, Any] = {**results.versions(), "python": platform.python_version()}
    if bench.is_cuda:
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "clocks": _clocks(),
        }
    return found


def _clocks() -> str:
    """Of the GPU now and at most, power and driver, as nvidia-smi tells them."""
    fields = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,driver_version"
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
