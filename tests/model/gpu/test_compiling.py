"""Each kernel, as its callers launch it, compiles for the GPUs that it runs on, without a GPU."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)

CAPABILITIES = (80, 90, 100)
SHARED_BYTES = 101_376  # the least that any GPU since Ampere gives a program
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32"}
NAMES |= {torch.int64: "i64", torch.bool: "i1"}
NUM_ROWS = 130


class Compiling:
    """Stands where a kernel does, and compiles it for what it is launched with."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability
        self.compiled: list[Any] = []

    def __getitem__(self, grid: object) -> Callable[..., None]:
        assert all(grid) if isinstance(grid, tuple) else grid
        return self.compile

    def compile(self, *values: Any, **named: Any) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        options = {name: named.pop(name) for name in list(named) if name not in names}
        signature = {name: type_of(value) for name, value in zip(names, values, strict=False)}
        attributes = {
            (place,): [["tt.divisibility", 16]]
            for place, value in enumerate(values)
            if not isinstance(value, float) and not number(value) % 16
        }
        signature |= dict.fromkeys(named, "constexpr")
        source = ASTSource(self.kernel, signature, constexprs=named, attrs=attributes)
        target = GPUTarget("cuda", self.capability, 32)
        self.compiled.append(triton.compile(source, target=target, options=options))


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{NAMES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def number(value: Any) -> int:
    return value.data_ptr() if isinstance(value, torch.Tensor) else int(value)


@pytest.fixture(params=CAPABILITIES)
def compiled(
    module: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[Any]]:
    """What the kernels of a module were compiled to, by their names."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # or else Triton 3.9 warns
    where = importlib.import_module(f"modernbert.{module}")
    kernels = {name: value for name, value in vars(where).items() if name.endswith("_kernel")}
    each = {name: Compiling(kernel, request.param) for name, kernel in kernels.items()}
    for name, stand_in in each.items():
        monkeypatch.setattr(where, name, stand_in)
    return {name: stand_in.compiled for name, stand_in in each.items()}


def heads() -> torch.Tensor:
    """As they lie in a joint product."""
    return torch.zeros(NUM_ROWS, 36, 64, dtype=torch.bfloat16)[:, :12].requires_grad_()


def rows(width: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.zeros(NUM_ROWS, width, dtype=dtype).requires_grad_()


def launch(module: str) -> None:
    """All kernels of a module, by the public functions and their gradients."""
    where: Any = importlib.import_module(f"modernbert.{module}")
    if module.endswith("fused_update"):
        from modernbert.training.optimizer import StableAdamW

        optimizer = StableAdamW([rows(768, torch.float32)], peak_learning_rate=1e-3)
        (weight,) = optimizer.param_groups[0]["params"]
        weight.grad = torch.zeros_like(weight)
        optimizer._advance(weight, {})
        update = optimizer._describe(weight, optimizer.param_groups[0])
        where.update([update], [weight.numel()], None, lambda sums: sums)
        return
    if module.endswith("cross_entropy"):
        where.become_gradients(rows(50_368).detach(), torch.zeros(NUM_ROWS, dtype=torch.int64))
        return
    if module.endswith("add_norm"):
        found = where.add_norm(rows(768, torch.float32), rows(768), torch.ones(768), 1e-5)[:2]
    elif module.endswith("geglu"):
        found = [where.geglu(rows(2_304))]
    elif module.endswith("rotation"):
        found = [where.turn(heads(), torch.ones(NUM_ROWS, 32), torch.ones(NUM_ROWS, 32), 1.0)]
    else:
        borders = torch.zeros(NUM_ROWS, dtype=torch.int32)
        inputs = (heads(), heads(), heads(), borders, borders + 1)
        found = [where.local_attention(*inputs, 64, ahead)[0] for ahead in (64, 0)]
    sum(each.float().sum() for each in found).backward()


MODULES = ("add_norm", "cross_entropy", "geglu", "local_attention", "rotation")
UPDATE = "training.fused_update"


@pytest.mark.parametrize("module", [*(f"model.gpu.{name}" for name in MODULES), UPDATE])
def test_compiles(module: str, compiled: dict[str, list[Any]]) -> None:
    launch(module)
    for name, launched in compiled.items():
        assert launched, name
        for kernel in launched:
            assert kernel.metadata.shared <= SHARED_BYTES, name
            code = kernel.asm["ptx"]
            assert kernel.asm["cubin"]
            assert "ld.global.v4" in code and "st.global.v4" in code, name  # 16 bytes at once
            if "attention" in name:
                assert "mma" in code
