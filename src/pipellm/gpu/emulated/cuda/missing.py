"""What the emulated GPU has not: one clear line where a program asks for it (docs/emulation.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
import torch.cuda.gds
import torch.cuda.memory

GRAPHS = "CUDA graphs: run without capturing"
POOLS = "other allocator than its own: leave out memory pools and pluggable allocators"
HISTORY = "history of its memory: ask torch.cuda.memory_stats()"
SENSORS = "sensors: NVML knows nothing of it"
LIBRARIES = "cuBLAS and cuSOLVER: PyTorch's CPU kernels compute"
KERNELS = "compiler for CUDA kernels: compute with PyTorch's operators"
NCCL = "NCCL: use the gloo backend of torch.distributed"
STORAGE = "GPUDirect Storage: read into host memory, and copy"
SHARING = "memory that other processes can open: send tensor.cpu() instead"
GREEN_CONTEXTS = "green contexts"
SYNC_DEBUG = "debug mode for synchronisation"

OF_TORCH_C: Mapping[str, tuple[str, ...]] = {
    HISTORY: (
        "_cuda_record_memory_history_legacy",
        "_cuda_memorySnapshot",
        "_cuda_allocationTraceback",
        "_cuda_setMemoryMetadata",
        "_cuda_getMemoryMetadata",
        "_cuda_attach_out_of_memory_observer",
    ),
    POOLS: (
        "_cuda_customAllocator",
        "_cuda_changeCurrentAllocator",
        "_cuda_getAllocator",
        "_cuda_cudaHostAllocator",
        "_cuda_beginAllocateToPool",
        "_cuda_beginAllocateCurrentThreadToPool",
        "_cuda_endAllocateToPool",
        "_cuda_releasePool",
    ),
    LIBRARIES: (
        "_cuda_getCurrentBlasHandle",
        "_cuda_getCurrentSolverHandle",
        "_cuda_getCublasWorkspaceSize",
        "_cuda_setCublasWorkspaceSize",
        "_cuda_getCublasLtWorkspaceSize",
        "_cuda_setCublasLtWorkspaceSize",
        "_cuda_get_cudnn_benchmark_limit",
        "_cuda_set_cudnn_benchmark_limit",
        "_cuda_tunableop_enable",
        "_cuda_tunableop_get_filename",
        "_cuda_tunableop_get_max_tuning_duration",
        "_cuda_tunableop_get_max_tuning_iterations",
        "_cuda_tunableop_get_results",
        "_cuda_tunableop_get_rotating_buffer_size",
        "_cuda_tunableop_get_validators",
        "_cuda_tunableop_read_file",
        "_cuda_tunableop_set_filename",
        "_cuda_tunableop_set_max_tuning_duration",
        "_cuda_tunableop_set_max_tuning_iterations",
        "_cuda_tunableop_set_numerical_check_tolerances",
        "_cuda_tunableop_set_rotating_buffer_size",
        "_cuda_tunableop_tuning_enable",
        "_cuda_record_untuned_enable",
    ),
    KERNELS: ("_cuda_jiterator_compile_and_launch_kernel",),
    # Not _nccl_all_reduce: by its absence torch knows, and DataParallel goes another way.
    NCCL: (
        "_nccl_version",
        "_nccl_version_suffix",
        "_nccl_unique_id",
        "_nccl_init_rank",
        "_nccl_reduce",
        "_nccl_broadcast",
        "_nccl_all_gather",
        "_nccl_reduce_scatter",
    ),
    STORAGE: (
        "_gds_register_buffer",
        "_gds_deregister_buffer",
        "_gds_register_handle",
        "_gds_deregister_handle",
        "_gds_load_storage",
        "_gds_save_storage",
    ),
}

OF_MODULES: Mapping[str, tuple[tuple[Any, str], ...]] = {
    GRAPHS: ((torch.cuda.CUDAGraph, "__new__"), (torch.cuda.graphs, "_graph_pool_handle")),
    POOLS: ((torch.cuda.MemPool, "__new__"),),
    HISTORY: ((torch.cuda.memory, "_snapshot"), (torch.cuda.memory, "_dump_snapshot")),
    SENSORS: (
        (torch.cuda, "temperature"),
        (torch.cuda, "power_draw"),
        (torch.cuda, "utilization"),
        (torch.cuda, "memory_usage"),
        (torch.cuda, "list_gpu_processes"),
        (torch.cuda.memory, "list_gpu_processes"),
    ),
    KERNELS: ((torch.cuda, "_compile_kernel"),),
    GREEN_CONTEXTS: ((torch.cuda.GreenContext, "create"),),
    SHARING: (
        (torch.UntypedStorage, "_share_cuda_"),
        (torch.UntypedStorage, "_new_shared_cuda"),
    ),
}


def refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"the emulated GPU has no {what}")


def refusing(what: str) -> Callable[..., NoReturn]:
    def refused(*args: Any, **kwargs: Any) -> NoReturn:
        refuse(what)

    return refused


def record_memory_history(enabled: str | None, *args: Any, **kwargs: Any) -> None:
    """Programs that switch it off need not know that it never was on."""
    if enabled is not None:
        refuse(HISTORY)


def set_sync_debug_mode(mode: int) -> None:
    if mode:
        refuse(SYNC_DEBUG)


def bindings() -> Mapping[str, Callable[..., object]]:
    return {
        "_cuda_record_memory_history": record_memory_history,
        "_cuda_set_sync_debug_mode": set_sync_debug_mode,
        "_cuda_get_sync_debug_mode": lambda: 0,
        "_cuda_tunableop_is_enabled": lambda: False,
        "_cuda_tunableop_tuning_is_enabled": lambda: False,
        "_cuda_record_untuned_is_enabled": lambda: False,
        **{name: refusing(what) for what, names in OF_TORCH_C.items() for name in names},
    }


def install() -> None:
    for what, places in OF_MODULES.items():
        for owner, name in places:
            setattr(
                owner,
                name,
                staticmethod(refusing(what)) if isinstance(owner, type) else refusing(what),
            )
