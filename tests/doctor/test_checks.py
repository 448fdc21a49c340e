"""Every check against machines that are made up: what it finds, and that it says what to do."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.doctor import report
from pipellm.doctor.check import Check, Status
from pipellm.doctor.checks import CHECKS, examine
from pipellm.doctor.machine import (
    Copying,
    Gpus,
    Kernel,
    Machine,
    Memory,
    Processor,
    Sealing,
    Software,
)

EMULATED = Machine(
    gpus=Gpus(),
    processor=Processor("Some CPU", frozenset({"aes", "pclmulqdq", "vaes", "vpclmulqdq"}), 2),
    memory=Memory(24 << 30, 20.0, "madvise"),
    kernel=Kernel("6.18.0", tracks_writes=True),
    sealing=Sealing("OpenSSL 3.0.19", {"openssl": 4.0, "ipsec-mb": 10.0}),
    software=Software(torch="2.13.0+cpu", vllm="0.31.0", compiler="/usr/bin/c++"),
)
"""A machine without a GPU that lacks nothing."""

COPIED = Copying(nbytes=16 << 20, served_bytes=8 << 20, host_register=801)
CONFIDENTIAL = replace(
    EMULATED,
    gpus=Gpus(driver="580.1", names=("NVIDIA H100 NVL",), confidential=True, ready=True),
    kernel=Kernel("6.18.0", tracks_writes=True, guest="Intel TDX"),
    software=Software(torch="2.13.0", torch_cuda="13.0", compiler="/usr/bin/c++"),
    copying=COPIED,
)


def find(machine: Machine, name: str) -> Check:
    (check,) = (check for check in examine(machine) if check.name == name)
    return check


def test_a_machine_without_a_gpu_lacks_nothing() -> None:
    assert {check.status for check in examine(EMULATED)} == {Status.OK}
    assert find(EMULATED, "gpu").detail == "no GPU: the emulated device will be used"


def test_a_confidential_gpu_that_works_is_only_warned_of_what_it_takes_away() -> None:
    worse = {check.name: check.status for check in examine(CONFIDENTIAL) if check.status != "ok"}
    assert worse == {"libcrypto": Status.WARN, "pinned memory": Status.WARN}


H100 = CONFIDENTIAL.gpus


@pytest.mark.parametrize(
    ("name", "machine", "status", "said"),
    [
        ("gpu", replace(EMULATED, gpus=Gpus(problem="Driver Not Loaded")), "warn", "Not Loaded"),
        ("gpu", replace(EMULATED, gpus=Gpus(driver="580.1")), "warn", "no GPU"),
        ("gpu", replace(EMULATED, gpus=replace(H100, names=("A", "A"))), "ok", "2 x A"),
        ("driver", CONFIDENTIAL, "ok", "580.1"),
        (
            "confidential computing",
            replace(EMULATED, gpus=replace(H100, confidential=None)),
            "warn",
            "does not say",
        ),
        (
            "confidential computing",
            replace(EMULATED, gpus=replace(H100, confidential=False)),
            "warn",
            "off",
        ),
        (
            "confidential computing",
            replace(EMULATED, gpus=replace(H100, ready=False)),
            "fail",
            "do not take work",
        ),
        (
            "confidential computing",
            replace(EMULATED, gpus=replace(H100, devtools=True)),
            "warn",
            "nothing is protected",
        ),
        ("guest", CONFIDENTIAL, "ok", "Intel TDX"),
        ("guest", replace(CONFIDENTIAL, kernel=EMULATED.kernel), "warn", "no sign of a TDX"),
        (
            "processor",
            replace(EMULATED, processor=Processor("Old", frozenset({"sse2"}), 2)),
            "warn",
            "no AES-NI",
        ),
        (
            "processor",
            replace(EMULATED, processor=Processor("Old", frozenset({"aes", "pclmulqdq"}), 2)),
            "ok",
            "no VAES",
        ),
        ("cores", replace(EMULATED, processor=Processor("One", frozenset(), 1)), "warn", "1:"),
        ("huge pages", replace(EMULATED, memory=Memory(1, 1.0, "never")), "warn", "never"),
        ("huge pages", replace(EMULATED, memory=Memory(1, 1.0, None)), "ok", "no transparent"),
        (
            "write tracking",
            replace(EMULATED, kernel=Kernel("5.10.0", tracks_writes=False)),
            "warn",
            "5.10.0",
        ),
        (
            "libcrypto",
            replace(EMULATED, sealing=Sealing(None, {"openssl": 4.0})),
            "fail",
            "no libcrypto.so.3",
        ),
        ("libcrypto", CONFIDENTIAL, "warn", "4.0 GB/s"),
        ("engine", EMULATED, "ok", "ipsec-mb; 10.0 GB/s on one core, 0.50 of a copy"),
        (
            "ipsec-mb",
            replace(EMULATED, sealing=Sealing("OpenSSL", {"openssl": 4.0})),
            "warn",
            "not built in",
        ),
        (
            "provider",
            replace(EMULATED, sealing=replace(EMULATED.sealing, provider_problem="missing")),
            "fail",
            "missing",
        ),
        ("torch", replace(EMULATED, software=Software()), "warn", "not installed"),
        (
            "torch",
            replace(EMULATED, software=Software(torch="2.13.0", torch_cuda="13.0")),
            "warn",
            "CUDA 13.0",
        ),
        ("torch", CONFIDENTIAL, "ok", "--gpu own"),
        ("torch", replace(EMULATED, software=Software(torch="2.12.1")), "warn", "2.12.1"),
        ("torch", replace(EMULATED, software=Software(torch="2.130.0")), "warn", "2.130.0"),
        ("compiler", replace(EMULATED, software=Software()), "warn", "first use"),
        ("vllm", replace(CONFIDENTIAL, software=EMULATED.software), "warn", "#55428"),
        ("vllm", replace(EMULATED, software=Software()), "ok", "not installed"),
        ("pinned memory", CONFIDENTIAL, "warn", "801"),
        (
            "pinned memory",
            replace(CONFIDENTIAL, copying=replace(COPIED, host_register=0)),
            "ok",
            "can be registered",
        ),
        ("copy", EMULATED, "ok", "not tried"),
        ("copy", CONFIDENTIAL, "ok", "sealed 8 MiB"),
        (
            "copy",
            replace(CONFIDENTIAL, copying=Copying(problem="no context")),
            "fail",
            "no context",
        ),
        (
            "copy",
            replace(CONFIDENTIAL, copying=replace(COPIED, served_bytes=0)),
            "fail",
            "did not ask the provider",
        ),
    ],
)
def test_what_is_found(name: str, machine: Machine, status: str, said: str) -> None:
    check = find(machine, name)
    assert (check.status, said in check.detail) == (status, True), check


def test_a_cuda_build_of_torch_is_for_a_gpu_of_ones_own() -> None:
    """Whoever has one is not to replace it, on whatever machine doctor is asked."""
    software = Software(torch="2.13.0", torch_cuda="13.0")
    for machine in (CONFIDENTIAL, replace(EMULATED, software=software)):
        check = find(machine, "torch")
        assert "--gpu own --attach libcrypto" in f"{check.detail} {check.remedy}"


machines = st.builds(
    Machine,
    gpus=st.builds(
        Gpus,
        driver=st.none() | st.just("580.1"),
        problem=st.none() | st.just("not there"),
        names=st.just(()) | st.just(("H100",)),
        confidential=st.none() | st.booleans(),
        devtools=st.booleans(),
        ready=st.none() | st.booleans(),
    ),
    processor=st.builds(
        Processor,
        st.just("CPU"),
        st.frozensets(st.sampled_from(["aes", "pclmulqdq", "vaes", "vpclmulqdq", "avx512f"])),
        st.integers(1, 4),
    ),
    memory=st.builds(Memory, st.just(1 << 30), st.just(20.0), st.none() | st.just("never")),
    kernel=st.builds(Kernel, st.just("6.1"), st.booleans(), st.none() | st.just("Intel TDX")),
    sealing=st.builds(
        Sealing,
        st.none() | st.just("OpenSSL 3"),
        st.sampled_from([{"openssl": 4.0}, {"openssl": 4.0, "ipsec-mb": 9.0}]),
        st.none() | st.just("broken"),
    ),
    software=st.builds(
        Software,
        torch=st.none() | st.just("2.13.0"),
        torch_cuda=st.none() | st.just("13.0"),
        vllm=st.none() | st.just("0.31.0"),
        compiler=st.none() | st.just("c++"),
    ),
    copying=st.none() | st.just(COPIED) | st.just(Copying(problem="broken")),
)


@given(machines)
def test_whatever_is_not_well_has_a_remedy_and_decides_the_exit_status(machine: Machine) -> None:
    checks = examine(machine)
    assert len(checks) == len(CHECKS)
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert (check.remedy is None) == (check.status is Status.OK)
        assert check.detail
        assert "\n" not in f"{check.detail}{check.remedy}"
    failed = any(check.status == "fail" for check in checks)
    assert report.exit_status(checks) == int(failed)
    said = json.loads(report.as_json(machine, checks))
    assert [c["name"] for c in said["checks"]] == [c.name for c in checks]
    assert said["seal_gbps"] == max(machine.sealing.engines_gbps.values())
