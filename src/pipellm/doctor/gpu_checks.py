"""What a GPU, and what confidential computing makes of it, means for PipeLLM."""

from __future__ import annotations

from collections import Counter

from pipellm.doctor.check import Check, fail, ok, warn
from pipellm.doctor.machine import Machine

_HARDWARE = "see docs/hardware.md"
_NOT_SUPPORTED = 801
"""CUDA's `not supported`: what registering host memory returns under confidential computing."""


def gpu(machine: Machine) -> Check:
    gpus = machine.gpus
    if gpus.driver is None and gpus.problem is None:
        return ok("gpu", "no GPU: the emulated device will be used")
    if gpus.problem is not None:
        remedy = 'install "pipellm[gpu]" (nvidia-ml-py), and see whether nvidia-smi works'
        return warn("gpu", f"an NVIDIA driver that cannot be asked: {gpus.problem}", remedy)
    if not gpus.names:
        remedy = "see whether nvidia-smi lists it; in a container, start that with GPU access"
        return warn("gpu", f"NVIDIA driver {gpus.driver}, but no GPU", remedy)
    return ok("gpu", ", ".join(f"{n} x {name}" for name, n in Counter(gpus.names).items()))


def driver(machine: Machine) -> Check:
    return ok("driver", f"NVIDIA {machine.gpus.driver}" if machine.gpus.driver else "none")


def confidential_computing(machine: Machine) -> Check:
    name, gpus = "confidential computing", machine.gpus
    if not gpus.names:
        return ok(name, "no GPU to ask; every policy but `off` and `ideal` emulates it")
    if gpus.confidential is None:
        return warn(name, "the driver does not say", f"use a newer driver; {_HARDWARE}")
    if not gpus.confidential:
        detail = "off: this GPU's copies are not sealed, and there is nothing to speed up"
        return warn(name, detail, f"to turn it on, {_HARDWARE}")
    if gpus.ready is False:
        remedy = "run, as root, after attestation: nvidia-smi conf-compute -srs 1"
        return fail(name, "on, but the GPUs do not take work yet", remedy)
    if gpus.devtools:
        remedy = f"good for profiling only; {_HARDWARE}"
        return warn(name, "on in DevTools mode: nothing is protected", remedy)
    return ok(name, "on: every copy is sealed")


def guest(machine: Machine) -> Check:
    kind = machine.kernel.guest
    if kind is not None:
        return ok("guest", f"{kind} guest")
    if machine.gpus.confidential:
        detail = "no sign of a TDX or SEV-SNP guest around a GPU that is confidential"
        return warn("guest", detail, f"data is protected only inside one; {_HARDWARE}")
    return ok("guest", "not confidential; only a confidential GPU needs that")


def copying(machine: Machine) -> Check:
    copied = machine.copying
    if copied is None:
        return ok("copy", "not tried: no confidential GPU")
    if copied.problem is not None:
        return fail("copy", copied.problem, f"see whether CUDA works at all; else {_HARDWARE}")
    size = f"{copied.nbytes >> 20} MiB"
    if copied.served_bytes == 0:
        detail = f"copied {size}, and the driver did not ask the provider for any of it"
        return fail(
            "copy", detail, f"`--attach libcrypto` does nothing here; report it: {_HARDWARE}"
        )
    return ok("copy", f"copied {size}; the provider sealed {copied.served_bytes >> 20} MiB of it")


def pinned_memory(machine: Machine) -> Check:
    name, copied = "pinned memory", machine.copying
    if copied is None or copied.host_register is None:
        return ok(
            name, "emulated: refused to programs under `serial`, PipeLLM's own under the others"
        )
    if copied.host_register == 0:
        return ok(name, "host memory can be registered")
    refused = "refused (801)" if copied.host_register == _NOT_SUPPORTED else "refused"
    detail = f"registering host memory is {refused}; pinned copies block their caller"
    return warn(name, detail, "programs: use pageable memory; else try --attach cudart")


def vllm(machine: Machine) -> Check:
    version = machine.software.vllm
    if version is None:
        return ok("vllm", "not installed")
    if not machine.gpus.confidential:
        return ok("vllm", f"{version}; its pitfalls are those of confidential GPUs")
    detail = (
        f"{version}: its own KV offloading registers host memory, which is refused here (vLLM "
        "#55428), and what relies on is_pinned() may read garbage (#57224)"
    )
    remedy = "offload with PipeLLM's spec, which registers nothing (PipeLLMOffloadingSpec)"
    return warn("vllm", detail, f"{remedy}; {_HARDWARE}, Engines")
