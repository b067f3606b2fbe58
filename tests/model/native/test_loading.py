"""Which variant is chosen, what is said of it, and that the kernels share torch's OpenMP."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from modernbert.errors import ConfigError, NativeKernelsWarning
from modernbert.model.native import loading
from modernbert.model.native.build import VARIANTS
from modernbert.model.native.loading import CAPABILITY, SWITCH, HostCpu, choose

AVX2 = frozenset({"avx2", "fma", "bmi2"})
ALDER_LAKE = AVX2 | {"avx_vnni", "sse4_2"}
SKYLAKE = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CASCADE_LAKE = SKYLAKE | {"avx512_vnni"}
ZEN_4 = CASCADE_LAKE | {"avx512_bf16", "sse4a"}


def machine(features: frozenset[str], **objects: bool) -> HostCpu:
    """An x86 machine with Linux; objects: whether fresh, all fresh unless given."""
    fresh = {variant.name: True for variant in VARIANTS}
    named = {name.replace("_", "-"): value for name, value in objects.items()}
    return HostCpu(architecture="x86_64", features=features, objects=named or fresh)


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (AVX2, "avx2"),
        (ALDER_LAKE, "avx2-vnni"),
        (SKYLAKE, "avx512"),
        (CASCADE_LAKE, "avx512-vnni"),
        (ZEN_4, "avx512-bf16"),
    ],
)
def test_the_best_that_the_cpu_has(features: frozenset[str], name: str) -> None:
    chosen = choose(machine(features), {})
    assert chosen.variant is not None and chosen.variant.name == name
    assert loading.describe(chosen) == f"C kernels: {name}"


@pytest.mark.parametrize("name", ["avx2", "avx512", "avx512-vnni", "avx512-bf16"])
def test_a_variant_by_its_name(name: str) -> None:
    chosen = choose(machine(ZEN_4), {SWITCH: name, CAPABILITY: "default"})
    assert chosen.variant is not None and chosen.variant.name == name
    assert chosen.is_wanted


def test_amx_is_taken_for_its_products() -> None:
    sapphire_rapids = ZEN_4 | {"amx_tile", "amx_bf16", "amx_int8"}
    chosen = choose(machine(sapphire_rapids), {})
    assert chosen.takes_onednn and chosen.name == "amx"
    assert loading.describe(chosen) == "C kernels: amx"
    forced = choose(machine(sapphire_rapids), {SWITCH: "avx512-bf16"})
    assert not forced.takes_onednn
    assert choose(machine(ZEN_4), {SWITCH: "amx"}).takes_onednn
    assert not choose(machine(sapphire_rapids), {CAPABILITY: "avx2"}).takes_onednn
    with pytest.raises(ConfigError, match="this CPU lacks avx512_bf16"):
        choose(machine(CASCADE_LAKE), {SWITCH: "amx"})


@pytest.mark.parametrize("environment", [{SWITCH: "0"}, {CAPABILITY: "default"}])
def test_switched_off(environment: dict[str, str]) -> None:
    chosen = choose(machine(ZEN_4), environment)
    assert chosen.variant is None and chosen.is_wanted


def test_torchs_limit_holds() -> None:
    limited = choose(machine(ZEN_4), {CAPABILITY: "avx2"}).variant
    assert limited is not None and limited.name == "avx2"
    unlimited = choose(machine(ZEN_4), {CAPABILITY: "avx512"}).variant
    assert unlimited is not None and unlimited.name == "avx512-bf16"


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("sse2", machine(ZEN_4), "no such kernels for this machine"),
        ("avx512-bf16", machine(CASCADE_LAKE), "this CPU lacks avx512_bf16"),
        ("avx512-bf16", machine(ZEN_4, avx512=True, avx512_vnni=True), "lacks avx512-bf16; run"),
        (
            "avx512-bf16",
            machine(ZEN_4, avx512=True, avx512_vnni=True, avx512_bf16=False),
            "the sources of avx512-bf16 have changed; run `make kernels`",
        ),
    ],
    ids=["unknown", "CPU", "absent", "stale"],
)
def test_a_name_that_cannot_be_had(name: str, given: HostCpu, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose(given, {SWITCH: name})
    assert reason in str(error.value)
    usable = ", ".join(variant.name for variant in given.usable())
    if "avx512-bf16" in usable:
        usable += ", amx"
    assert str(error.value).endswith(f"expected one of 0, {usable}")


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (
            HostCpu(architecture="Darwin on arm64", features=frozenset(), objects={}),
            "there are none for Darwin on arm64",
        ),
        (machine(frozenset({"sse4_2"})), "this CPU lacks avx2"),
        (
            HostCpu(architecture="x86_64", features=ZEN_4, objects={}, remedy="cure it"),
            "this installation lacks .*; cure it",
        ),
        (machine(ZEN_4, **{v.name: False for v in VARIANTS}), "the sources of .* have changed"),
    ],
    ids=["system", "CPU", "installation", "stale"],
)
def test_none_at_all_is_explained(given: HostCpu, note: str) -> None:
    chosen = choose(given, {})
    assert chosen.variant is None and not chosen.is_wanted
    assert re.match(f"C kernels: none, as {note}", loading.describe(chosen))


def test_a_lesser_one_than_the_stale_is_taken_and_said() -> None:
    chosen = choose(machine(ZEN_4, avx512=True, avx512_bf16=False), {})
    assert chosen.variant is not None and chosen.variant.name == "avx512"
    assert loading.describe(chosen) == (
        "C kernels: avx512; the sources of avx512-bf16 have changed; run `make kernels`"
    )


def test_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = HostCpu(architecture="x86_64", features=ZEN_4, objects={})
    monkeypatch.setattr(loading, "choice", lambda: choose(empty, {}))
    loading.library.cache_clear()
    try:
        with pytest.warns(NativeKernelsWarning, match="C kernels: none") as told:
            assert loading.library() is None
            assert not loading.has_bfloat16() and not loading.has_int8()
        assert len(told) == 1
    finally:
        loading.library.cache_clear()


@pytest.mark.skipif(loading.library() is None, reason=loading.describe(loading.choice()))
def test_a_process_of_its_own_with_one_openmp() -> None:
    """The plainest variant, on torch's own threads: no second pool, and nothing of the system's."""
    program = """
        from pathlib import Path
        import torch
        from modernbert import Encoder, EncoderConfig, PackedBatch
        from modernbert.model.initialize import initialize
        from modernbert.model.native.loading import variant_name
        encoder = initialize(Encoder(EncoderConfig.preset("tiny", vocab_size=320)), seed=0)
        encoder.for_inference("float32")(PackedBatch.from_sequences([range(200)]))
        print(variant_name())
        print(Path("/proc/self/maps").read_text())
    """
    name = loading.this_machine().usable()[0].name
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, SWITCH: name},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    used, maps = answer.stdout.split("\n", 1)
    assert used == name
    assert len(set(re.findall(r"\S*(?:libgomp|libi?omp)\S*", maps))) == 1
