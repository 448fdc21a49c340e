"""The entry points by which vLLM finds PipeLLM. Loaded by every process of every vLLM: light."""

from __future__ import annotations

import os
from contextlib import suppress

SPEC = "PipeLLMOffloadingSpec"
"""The name of the spec, as in `--kv-transfer-config`."""

_HERE = __name__.rpartition(".")[0]


def register() -> None:
    """`vllm.general_plugins`: makes the spec known by its name."""
    from vllm.v1.kv_offload.factory import OffloadingSpecFactory

    with suppress(ValueError):  # vLLM may load its plugins more than once
        OffloadingSpecFactory.register_spec(SPEC, f"{_HERE}.spec", SPEC)


def platform() -> str | None:
    """`vllm.platform_plugins`: the platform for a CPU build of vLLM with an emulated GPU under it.

    None, that is no opinion, everywhere else.
    """
    if not os.environ.get("PIPELLM_GPU", "").startswith("emulated"):
        return None
    from vllm.platforms import cpu_platform_plugin

    if cpu_platform_plugin() is None:
        return None
    return f"{_HERE}.platform.EmulatedGpuPlatform"
