"""vLLM's CPU platform with an emulated GPU under it: other defaults for memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
from vllm.platforms import cpu_platform_plugin
from vllm.utils.import_utils import resolve_obj_by_qualname

from pipellm.integrations.vllm.plugin import SPEC

if TYPE_CHECKING:
    from vllm.config import VllmConfig

CONNECTOR = "OffloadingConnector"

HOST_BYTES = 4 << 30
"""Host memory for swapped blocks unless `--kv-offloading-size` says otherwise: as much as vLLM's
`--swap-space` was before it was removed. It is taken from the system as it is used."""


SHARE = 0.5
"""Of the memory that is free, for the KV caches of all workers together, unless the user says
otherwise. A CPU build would take 92 % of all memory, and not start where more than 8 % is in use;
but the emulated GPU's host needs memory too: for the swapped blocks."""


class EmulatedGpuPlatform(resolve_obj_by_qualname(cpu_platform_plugin())):  # type: ignore[misc]
    """The CPU platform that vLLM would have chosen, but for what it does with host memory."""

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        """Swaps blocks through PipeLLM, unless the user has chosen another connector, between a
        KV cache and host memory that fit in this host together."""
        super().apply_config_platform_defaults(vllm_config)
        # What vLLM 0.31 compiles for a CPU ahead of time and stores, it cannot load: it tries,
        # fails, and compiles again, at every start. PyTorch's own cache of compiled code works.
        os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")
        cache = vllm_config.cache_config
        usual = type(cache).gpu_memory_utilization
        if cache.kv_cache_memory_bytes is None and cache.gpu_memory_utilization == usual:
            workers = vllm_config.parallel_config.world_size
            free = psutil.virtual_memory().available
            cache.kv_cache_memory_bytes = int(free * SHARE) // workers
        model = vllm_config.model_config
        if model is None or model.runner_type != "generate":
            return
        if vllm_config.kv_transfer_config is None:
            from vllm.config import KVTransferConfig

            vllm_config.kv_transfer_config = KVTransferConfig(
                kv_connector=CONNECTOR, kv_role="kv_both"
            )
        chosen = vllm_config.kv_transfer_config
        if chosen.kv_connector == CONNECTOR:
            extra = chosen.kv_connector_extra_config
            extra.setdefault("spec_name", SPEC)
            if extra["spec_name"] == SPEC:
                extra.setdefault("cpu_bytes_to_use", HOST_BYTES)
                # Preempted requests come back with all they have generated.
                extra.setdefault("offload_prompt_only", False)
