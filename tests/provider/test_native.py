"""The provider against OpenSSL's own, call by call; and under the sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipellm import _native
from pipellm.attach.libcrypto import MODULE
from tests import compiled

VARIANTS = ["sse", "avx", "avx2", "avx512", "libcrypto"]


def build(name: str, *options: str, targets: str = "all") -> Path:
    options = ("-DPIPELLM_PROVIDER_TESTS=ON", *options)
    return compiled.with_cmake(name, "native/provider", *options, targets=targets)


def run(*command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def built() -> Path:
    return build("provider")


def test_random_sequences_of_calls_come_out_as_with_the_default_provider(built: Path) -> None:
    """20,000 here; `provider_fuzz MODULE 1000000 SEED` for more (docs/provider.md)."""
    said = run(built / "provider_fuzz", built / "pipellm_provider.so", "20000")
    assert said == "20000 sequences, no difference\n"


@pytest.mark.parametrize("variant", VARIANTS)
def test_so_they_do_with_every_primitive_and_set_of_instructions(built: Path, variant: str) -> None:
    if "ipsec-mb" not in _native.engines():
        pytest.skip("without ipsec-mb there is one primitive")
    if variant.startswith("avx") and not has_instructions(variant):
        pytest.skip(f"this CPU has no {variant}")
    said = run(built / "provider_fuzz", built / f"pipellm_provider_{variant}.so", "4000", "2")
    assert said == "4000 sequences, no difference\n"


def has_instructions(variant: str) -> bool:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    return {"avx512": "avx512vl"}.get(variant, variant) in flags


def test_a_child_forked_while_threads_seal_goes_on(built: Path) -> None:
    for _ in range(5):
        said = run(built / "provider_hammer", built / "pipellm_provider.so", "fork")
        assert said == "hammer: ok\n"


@pytest.mark.long
@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_threads_and_random_sequences_are_clean(sanitizers: str) -> None:
    targets = "pipellm_provider provider_hammer provider_fuzz"
    folder = build(f"provider-{sanitizers}", f"-DPIPELLM_SANITIZE={sanitizers}", targets=targets)
    environment = {
        "TSAN_OPTIONS": "halt_on_error=1",
        "ASAN_OPTIONS": "halt_on_error=1:detect_leaks=1",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    module = folder / "pipellm_provider.so"
    assert run(folder / "provider_hammer", module, **environment) == "hammer: ok\n"
    sequences = "2000" if sanitizers == "thread" else "10000"
    said = run(folder / "provider_fuzz", module, sequences, **environment)
    assert said == f"{sequences} sequences, no difference\n"


def test_the_module_brings_no_symbols_but_its_entry() -> None:
    said = run("nm", "--dynamic", "--defined-only", "--format=just-symbols", MODULE)
    assert said.split() == ["OSSL_provider_init"]
