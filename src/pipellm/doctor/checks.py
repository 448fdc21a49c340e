"""Judges a machine. Each function is one check; none looks at anything but its argument.

What is merely missing on a machine without a GPU is no fault: the emulated device stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipellm.channel.engines import LIBCRYPTO, Engines
from pipellm.doctor import gpu_checks
from pipellm.doctor.check import Check, fail, ok, warn
from pipellm.doctor.machine import Machine

TORCH = "2.13"
"""The version of PyTorch whose CPU-only build the emulated device is made for."""

IPSEC_MB = "ipsec-mb"
_REINSTALL = "install PipeLLM again (`make setup` in a checkout)"


def processor(machine: Machine) -> Check:
    cpu = machine.processor
    if not {"aes", "pclmulqdq"} <= cpu.flags:
        detail = f"{cpu.model}: no AES-NI, so sealing is done in software"
        return warn("processor", detail, "use a CPU, or a guest's CPU model, that has AES-NI")
    wide = "VAES" if {"vaes", "vpclmulqdq"} <= cpu.flags else "AES-NI, no VAES"
    vectors = "AVX-512" if "avx512f" in cpu.flags else "no AVX-512"
    return ok("processor", f"{cpu.model}: {wide}, {vectors}")


def cores(machine: Machine) -> Check:
    count = machine.processor.cores
    if count == 1:
        detail = "1: no core to seal on, so `pipelined` and `prefetch` gain little"
        return warn("cores", detail, "give it two or more (taskset, the container's CPU limit)")
    return ok("cores", f"{count}")


def memory(machine: Machine) -> Check:
    values = machine.memory
    detail = f"{values.total_bytes / 2**30:.0f} GiB; one thread copies {values.copy_gbps:.1f} GB/s"
    return ok("memory", detail)


def libcrypto(machine: Machine) -> Check:
    sealing = machine.sealing
    if sealing.libcrypto is None:
        remedy = "install libssl3: NVIDIA's driver seals with it, and so does policy serial"
        return fail("libcrypto", "no libcrypto.so.3", remedy)
    speed = sealing.engines_gbps[LIBCRYPTO]
    detail = f"{sealing.libcrypto}; seals {speed:.1f} GB/s on one core"
    fastest = max(sealing.engines_gbps.values())
    if machine.gpus.confidential and speed < 0.7 * fastest:
        return warn("libcrypto", detail, "run programs with --gpu own --attach libcrypto")
    return ok("libcrypto", detail)


def engine(machine: Machine) -> Check:
    engines = Engines(dict(machine.sealing.engines_gbps))
    speed = engines.gigabytes_per_second[engines.fastest]
    share = speed / machine.memory.copy_gbps
    return ok("engine", f"{engines.fastest}; {speed:.1f} GB/s on one core, {share:.2f} of a copy")


def ipsec_mb(machine: Machine) -> Check:
    if IPSEC_MB in machine.sealing.engines_gbps:
        return ok(IPSEC_MB, "built in")
    if "aes" not in machine.processor.flags:
        return ok(IPSEC_MB, "not built in; this CPU has no use for it")
    remedy = f"install libipsec-mb-dev, then {_REINSTALL}"
    return warn(IPSEC_MB, "not built in: sealing is left to libcrypto", remedy)


def provider(machine: Machine) -> Check:
    problem = machine.sealing.provider_problem
    if problem is None:
        return ok("provider", "a program's libcrypto takes AES-GCM from it")
    return fail("provider", problem, _REINSTALL)


def write_tracking(machine: Machine) -> Check:
    name, kernel = "write tracking", machine.kernel
    if kernel.tracks_writes:
        return ok(name, f"works on Linux {kernel.release}")
    detail = f"not on this Linux {kernel.release}: only declared tensors are sealed ahead"
    remedy = "use Linux 6.11 or later, and let the container (seccomp) call userfaultfd"
    return warn(name, detail, remedy)


def huge_pages(machine: Machine) -> Check:
    name, policy = "huge pages", machine.memory.huge_pages
    if policy is None:
        return ok(name, "this kernel has no transparent ones")
    if policy == "never":
        remedy = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root"
        return warn(name, "never: what is sealed ahead lies in small pages", remedy)
    return ok(name, policy)


def torch(machine: Machine) -> Check:
    software = machine.software
    wanted = f"install the CPU-only build of torch {TORCH} (torch=={TORCH}.0)"
    if software.torch is None:
        return warn("torch", "not installed: no emulated device for PyTorch programs", wanted)
    if software.torch_cuda is not None:
        detail = f"{software.torch}, built for CUDA {software.torch_cuda}"
        own = "run programs with --gpu own --attach libcrypto"
        if machine.gpus.names:
            return ok("torch", f"{detail}: {own}")
        remedy = f"on a machine with a GPU, {own}; for the emulated device, {wanted}"
        return warn("torch", f"{detail}: the emulated device cannot be put under it", remedy)
    if not software.torch.startswith(f"{TORCH}."):
        detail = f"{software.torch}, CPU-only: the emulated device is tested with {TORCH} alone"
        return warn("torch", detail, wanted)
    return ok("torch", f"{software.torch}, CPU-only: fit for the emulated device")


def compiler(machine: Machine) -> Check:
    found = machine.software.compiler
    if found is not None:
        return ok("compiler", found)
    detail = "none: the emulated device is compiled on first use"
    return warn("compiler", detail, "install g++ 11 or clang++ 14, or later, or name one in CXX")


CHECKS: Sequence[Callable[[Machine], Check]] = (
    *(gpu_checks.gpu, gpu_checks.driver, gpu_checks.confidential_computing, gpu_checks.guest),
    *(processor, cores, memory, huge_pages, write_tracking),
    *(libcrypto, engine, ipsec_mb, provider),
    *(torch, compiler, gpu_checks.vllm),
    *(gpu_checks.pinned_memory, gpu_checks.copying),
)


def examine(machine: Machine) -> list[Check]:
    """Every check, in the order in which they are shown."""
    return [check(machine) for check in CHECKS]
