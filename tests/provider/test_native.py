"""The provider against OpenSSL's own, call by call; and under the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipellm import _native
from pipellm.attach.libcrypto import MODULE

REPOSITORY = Path(__file__).parents[2]
VARIANTS = ["sse", "avx", "avx2", "avx512", "libcrypto"]


def build(folder: Path, *options: str, targets: str = "all") -> Path:
    cmake = shutil.which("cmake")
    assert cmake, "cmake comes with `make setup`"
    configure = [cmake, "-S", str(REPOSITORY / "native" / "provider"), "-B", str(folder)]
    configure += ["-DPIPELLM_PROVIDER_TESTS=ON", *options]
    compile_ = [cmake, "--build", str(folder), "--parallel", "2", "--target", *targets.split()]
    for command in (configure, compile_):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("provider"))


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


def test_a_schedule_foresees_ivs_that_are_a_counter_under_a_mask(built: Path) -> None:
    assert run(built / "provider_schedule", "1") == "schedule: ok\n"


@pytest.mark.parametrize("variant", VARIANTS[:-1])
@pytest.mark.parametrize("fork", [[], ["fork"]], ids=["one process", "forked"])
def test_numbered_messages_come_out_the_same_with_keystream_made_ahead(
    built: Path, variant: str, fork: list[str]
) -> None:
    if "ipsec-mb" not in _native.engines():
        pytest.skip("without ipsec-mb nothing is made ahead")
    if variant.startswith("avx") and not has_instructions(variant):
        pytest.skip(f"this CPU has no {variant}")
    module = built / f"pipellm_provider_{variant}.so"
    said = run(built / "provider_numbered", module, "1000", "1", *fork)
    assert said.startswith("1000 messages, ")
    assert int(said.split()[2]) > 0


def test_numbered_messages_come_out_the_same_where_it_is_chosen_as_they_come(built: Path) -> None:
    said = run(built / "provider_numbered", built / "pipellm_provider.so", "2000", "2")
    assert said.startswith("2000 messages, ")


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_threads_and_random_sequences_are_clean(sanitizers: str, tmp_path: Path) -> None:
    ahead = "pipellm_provider_sse" if "ipsec-mb" in _native.engines() else ""
    targets = f"pipellm_provider {ahead} provider_hammer provider_fuzz provider_numbered"
    folder = build(tmp_path, f"-DPIPELLM_SANITIZE={sanitizers}", targets=targets)
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
    if ahead:
        run(folder / "provider_numbered", folder / f"{ahead}.so", "300", "1", **environment)


def test_the_module_brings_no_symbols_but_its_entry() -> None:
    said = run("nm", "--dynamic", "--defined-only", "--format=just-symbols", MODULE)
    assert said.split() == ["OSSL_provider_init"]
