"""What torch.compile finds: no compiler for the device, and the host's as it was.

Dynamo traces programs on the device as on any other. Inductor would then write Triton kernels,
which need a real GPU: a graph with tensors on the device is run as it was traced, operator by
operator. Graphs on the host are compiled as they are without a device.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.utils._triton
from torch.utils._pytree import tree_leaves

from pipellm.gpu.emulated.cuda.after_import import after_import


class AllocatorState:
    """Of an allocator at a checkpoint of CUDA graphs, which there are none of."""


def bindings() -> Mapping[str, Callable[..., object]]:
    return {"_cuda_CUDAAllocator_AllocatorState": AllocatorState}


def install() -> None:
    # Nothing in torch has taken it by name yet: it is imported with the compiler.
    vars(torch.utils._triton)["has_triton"] = has_triton
    after_import("triton.backends.nvidia.driver", _deactivate_driver)
    after_import("torch._inductor.compile_fx", _keep_to_the_host)
    _renew_what_dynamo_took()


def _renew_what_dynamo_took() -> None:
    """Of `torch.cuda`, by name, where a program imported Dynamo before it asked for the device."""
    exchange = {
        "exchange": staticmethod(torch.cuda._exchange_device),
        "maybe_exchange": staticmethod(torch.cuda._maybe_exchange_device),
    }
    if (contexts := sys.modules.get("torch._dynamo.variables.ctx_manager")) is not None:
        for name, function in exchange.items():
            setattr(contexts.CUDADeviceVariable, f"_{name}_fn", function)
    if (interfaces := sys.modules.get("torch._dynamo.device_interface")) is not None:
        cuda = interfaces.CudaInterface
        for name, function in exchange.items():
            setattr(cuda, f"{name}_device", function)
        cuda.Event, cuda.Stream = torch.cuda.Event, torch.cuda.Stream
        cuda.get_raw_stream = staticmethod(torch._C._cuda_getCurrentRawStream)
    if (rules := sys.modules.get("torch._dynamo.trace_rules")) is not None:
        rules.clear_lru_cache()


@functools.cache
def has_triton() -> bool:
    """Whether a device runs Triton's kernels. torch asks for a package and a recent GPU only."""
    return False


def _deactivate_driver(module: Any) -> None:
    """Triton takes a `torch.cuda` that is available for NVIDIA's driver."""
    module.CudaDriver.is_active = staticmethod(lambda: False)


def _keep_to_the_host(inductor: Any) -> None:
    compile_fx: Callable[..., Any] = inductor.compile_fx
    compile_fx_aot: Callable[..., Any] = inductor.compile_fx_aot

    @functools.wraps(compile_fx)
    def compile_or_trace(model: Any, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if not _on_device(model, inputs):
            return compile_fx(model, inputs, *args, **kwargs)
        _say_that_nothing_is_compiled()
        return model.forward if isinstance(model, torch.nn.Module) else model

    @functools.wraps(compile_fx_aot)
    def package(model: Any, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if _on_device(model, inputs):
            _refuse_to_package()
        return compile_fx_aot(model, inputs, *args, **kwargs)

    inductor.compile_fx = compile_or_trace
    inductor.compile_fx_aot = package


@functools.cache
def _say_that_nothing_is_compiled() -> None:
    print(
        "pipellm: torch.compile: the emulated GPU has no compiler; its graphs run uncompiled",
        file=sys.stderr,
    )


def _refuse_to_package() -> NoReturn:
    raise NotImplementedError(
        "the emulated GPU has no compiler, so a model on it cannot be packaged; move it to the CPU"
    )


def _on_device(model: Any, inputs: Sequence[Any]) -> bool:
    return any(
        isinstance(value, torch.Tensor) and value.device.type == "cuda"
        for value in _values(model, inputs)
    )


def _values(model: Any, inputs: Sequence[Any]) -> Iterator[Any]:
    """What goes into a graph, and what is made in it: tracers note that with each node."""
    yield from tree_leaves(inputs)
    for module in model.modules() if isinstance(model, torch.nn.Module) else ():
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            yield from tree_leaves([node.meta.get("example_value"), node.meta.get("val")])
