"""LoRA fine-tuning with PEFT over DeepSpeed's ZeRO-3, the frozen weights offloaded to the host.

As PEFT's own example configures it: `offload_param` with pinned memory, gradient checkpointing, one
GPU. Read in DeepSpeed 0.19.8 (`partitioned_param_coordinator.py`): parameters below the persistence
threshold (vectors, adapters) stay on the device; every matrix is fetched for the forward pass, let
go, and fetched again for the backward pass, where checkpointing computes the layer anew first. The
next layer is fetched on a stream of its own while this one computes, and the program waits for its
fetches so as not to run ahead of them. The backward pass goes through the layers in reverse, each
in its own forward order.

The adapters' gradients and their optimizer stay on the device: they are a thousandth of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipellm.transfers import Direction
from pipellm.workloads.events import Compute, Copy, Done, Event, StreamWait, Synchronize
from pipellm.workloads.models import HALF, Model, Tensor
from pipellm.workloads.placement import Placement

_COMPUTE, _FETCH = 0, 1  # streams
_LAYER_KERNELS = 40


@dataclass(frozen=True, slots=True)
class _Part:
    """What is fetched as one: a layer's matrices, or the embedding."""

    buffers: tuple[tuple[int, int], ...]
    """Address and bytes of each copy."""
    flops: float
    """Of its forward pass."""

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self.buffers)


@dataclass(frozen=True)
class PeftLora:
    """One training step after the other. One unit is one sample."""

    opt: Model
    batch: int = 8
    length: int = 512
    """Tokens of a sample."""
    name: str = field(default="peft-lora", init=False)
    unit: str = field(default="samples", init=False)

    @property
    def model(self) -> str:
        return self.opt.name

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        host, device = Placement.host(), Placement.device()
        parts = self._parts(host)
        largest = max(part.nbytes for part in parts)
        halves = (device.place(largest), device.place(largest))
        ids, on_device = host.place(self._ids_nbytes), device.place(self._ids_nbytes)
        output = parts[-1]
        # Backward: forward once more, then the gradient of what went in; frozen weights have none.
        # The output is still there and is not computed anew; the input needs no gradient.
        steps = [(part, part.flops) for part in parts[:-1]]
        steps += [(output, 2 * output.flops)]
        steps += [(part, 2 * part.flops) for part in parts[-2:0:-1]]
        while True:
            yield Copy(
                Direction.H2D,
                ids,
                self._ids_nbytes,
                on_device,
                _COMPUTE,
                blocking=True,
                pinned=False,
            )
            yield from _fetch(steps[0][0], halves[0])
            for index, (part, flops) in enumerate(steps):
                yield StreamWait(_COMPUTE, _FETCH)
                if index + 1 < len(steps):
                    yield from _fetch(steps[index + 1][0], halves[(index + 1) % 2])
                yield self._compute(part, flops)
                yield Synchronize(_FETCH)
            yield Synchronize()
            yield Done(self.batch)

    @property
    def _ids_nbytes(self) -> int:
        return self.batch * self.length * 8

    def _parts(self, host: Placement) -> list[_Part]:
        opt, tokens = self.opt, self.batch * self.length
        layer = [tensor for tensor in (*opt.attention, *opt.mlp) if len(tensor.shape) > 1]
        flops = opt.attention_flops(tokens, self.length / 2) + opt.mlp_flops(tokens)
        parts = [_part(host, [opt.tokens_table, opt.positions_table], 0.0)]
        parts += [_part(host, layer, flops) for _ in range(opt.layers)]
        # The output uses the embedding again.
        parts += [_Part(parts[0].buffers[:1], opt.output_flops(tokens))]
        return parts

    def _compute(self, part: _Part, flops: float) -> Compute:
        activations = 16.0 * self.batch * self.length * self.opt.hidden * HALF
        return Compute(flops, part.nbytes + activations, _COMPUTE, _LAYER_KERNELS)


def _part(host: Placement, tensors: Sequence[Tensor], flops: float) -> _Part:
    return _Part(tuple((host.place(t.nbytes), t.nbytes) for t in tensors), flops)


def _fetch(part: _Part, device: int) -> Iterator[Copy]:
    for address, nbytes in part.buffers:
        yield Copy(Direction.H2D, address, nbytes, device, _FETCH)
        device += nbytes
