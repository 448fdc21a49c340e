"""vLLM's CPU platform with an emulated GPU under it: offloading is on by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.platforms import cpu_platform_plugin
from vllm.utils.import_utils import resolve_obj_by_qualname

from pipellm.integrations.vllm.plugin import SPEC

if TYPE_CHECKING:
    from vllm.config import VllmConfig

CONNECTOR = "OffloadingConnector"

HOST_BYTES = 4 << 30
"""Host memory for swapped blocks unless `--kv-offloading-size` says otherwise: as much as vLLM's
`--swap-space` was before it was removed. It is taken from the system as it is used."""


class EmulatedGpuPlatform(resolve_obj_by_qualname(cpu_platform_plugin())):  # type: ignore[misc]
    """The CPU platform that vLLM would have chosen, but for one default."""

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        """Swaps blocks through PipeLLM, unless the user has chosen another connector."""
        super().apply_config_platform_defaults(vllm_config)
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
