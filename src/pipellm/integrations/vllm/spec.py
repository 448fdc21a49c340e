"""The offloading spec that vLLM makes the two halves from: one in its scheduler, one per worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.v1.kv_offload.base import OffloadingSpec
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from pipellm.errors import UserError
from pipellm.integrations.vllm.foresight import ForesightManager
from pipellm.integrations.vllm.worker import ChannelWorker

if TYPE_CHECKING:
    from vllm.v1.kv_offload.base import CanonicalKVCaches, OffloadingMetricMetadata
    from vllm.v1.kv_offload.config import OffloadingConfig


class PipeLLMOffloadingSpec(OffloadingSpec):  # type: ignore[misc]
    """Blocks swapped to host memory through the secure channel.

    `cpu_bytes_to_use`, in `kv_connector_extra_config`, is the host memory for all workers together.
    """

    def __init__(self, config: OffloadingConfig) -> None:
        super().__init__(config)
        budget = int(self.extra_config.get("cpu_bytes_to_use") or 0)
        chunk = config.worker_kv_bytes_per_block * self.blocks_per_chunk
        self._chunks = budget // max(chunk * config.parallel.world_size, 1)
        if self._chunks < 1:
            raise UserError(
                f"{budget:,} bytes of host memory hold no block of the KV cache: raise "
                "cpu_bytes_to_use in kv_connector_extra_config, or --kv-offloading-size"
            )
        self._manager: ForesightManager | None = None
        self._worker: ChannelWorker | None = None

    @classmethod
    def build_metric_definitions(
        cls, extra_config: dict[str, Any]
    ) -> dict[str, OffloadingMetricMetadata]:
        """Those of vLLM's own manager, which ours is but for what it foretells."""
        definitions: dict[str, OffloadingMetricMetadata] = (
            CPUOffloadingSpec.build_metric_definitions(extra_config)
        )
        return definitions

    def get_manager(self) -> ForesightManager:
        if self._manager is None:
            self._manager = ForesightManager(
                self._chunks, enable_events=self.kv_events_config.enable_kv_cache_events
            )
        return self._manager

    def get_worker(self, kv_caches: CanonicalKVCaches) -> ChannelWorker:
        if self._worker is None:
            self._worker = ChannelWorker(
                kv_caches, self._chunks, self.blocks_per_chunk, self.config.parallel.rank
            )
        return self._worker
