"""What vLLM's configuration becomes on an emulated GPU, and what stays the user's."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipellm.integrations.vllm.plugin import SPEC

FREE = 10 << 30


COMPILE_AHEAD = "VLLM_USE_AOT_COMPILE"


@pytest.fixture(autouse=True)
def some_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=FREE))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != COMPILE_AHEAD}
    monkeypatch.setattr(os, "environ", environment)
    return environment


def configured(workers: int = 1, transfer: Any = None, **cache: Any) -> Any:
    from vllm.config import CacheConfig

    from pipellm.integrations.vllm.platform import EmulatedGpuPlatform

    config = SimpleNamespace(
        model_config=SimpleNamespace(runner_type="generate"),
        cache_config=CacheConfig(**cache),
        parallel_config=SimpleNamespace(world_size=workers),
        kv_transfer_config=transfer,
    )
    EmulatedGpuPlatform.apply_config_platform_defaults(config)
    return config


@pytest.mark.parametrize("workers", [1, 2])
def test_the_kv_caches_take_half_of_the_memory_that_is_free(workers: int) -> None:
    assert configured(workers).cache_config.kv_cache_memory_bytes == FREE // 2 // workers


@pytest.mark.parametrize(
    "chosen", [{"kv_cache_memory_bytes": 1 << 30}, {"gpu_memory_utilization": 0.5}]
)
def test_what_the_user_says_about_memory_holds(chosen: dict[str, Any]) -> None:
    cache = configured(**chosen).cache_config
    assert {name: getattr(cache, name) for name in chosen} == chosen
    assert cache.kv_cache_memory_bytes == chosen.get("kv_cache_memory_bytes")


def test_blocks_are_swapped_unless_the_user_has_chosen_another_connector() -> None:
    from vllm.config import KVTransferConfig

    assert configured().kv_transfer_config.kv_connector_extra_config["spec_name"] == SPEC
    other = KVTransferConfig(kv_connector="ExampleConnector", kv_role="kv_both")
    assert configured(transfer=other).kv_transfer_config == other


def test_nothing_is_compiled_that_vllm_could_not_load_again_unless_the_user_wants_it(
    environment: dict[str, str],
) -> None:
    configured()
    assert environment.pop(COMPILE_AHEAD) == "0"
    environment[COMPILE_AHEAD] = "1"
    configured()
    assert environment[COMPILE_AHEAD] == "1"
