"""FlexGen with its weights in host memory: every layer is loaded for every token.

Read in FlexGen 0.1.8 (`flex_opt.py`, `generation_loop_overlap_single_batch`), policy `--percent 0
100 100 0 100 0`: the weights are in pinned host memory, the KV cache and the activations on the
device. Attention and feed-forward are layers of their own. While one computes, the next one's
weights are loaded on a stream of their own; then the program waits for both. Batch and lengths are
the defaults of its command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipellm.transfers import Direction
from pipellm.workloads.events import Compute, Copy, Done, Event, Synchronize
from pipellm.workloads.models import HALF, Model, Tensor
from pipellm.workloads.placement import Placement

_COMPUTE, _WEIGHTS = 0, 1  # streams
_ATTENTION_KERNELS = 20  # the operators of its `mha` and `mha_gen`, about
_MLP_KERNELS = 6
_OUTPUT_KERNELS = 4


@dataclass(frozen=True, slots=True)
class _Layer:
    """What FlexGen loads and computes as one."""

    kind: str
    buffers: tuple[tuple[int, int], ...]
    """Address and bytes of each copy."""
    wide_nbytes: int
    """Of its parameters in 16 bits."""

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self.buffers)


@dataclass(frozen=True)
class FlexGen:
    """Generates for one batch after the other, without end. One unit is one token of one prompt."""

    opt: Model
    four_bit: bool = False
    """`--compress-weight`."""
    batch: int = 4
    prompt: int = 512
    tokens: int = 32
    name: str = field(default="flexgen", init=False)
    unit: str = field(default="tokens", init=False)

    @property
    def model(self) -> str:
        return f"{self.opt.name} 4-bit" if self.four_bit else self.opt.name

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        host, device = Placement.host(), Placement.device()
        layers = self._layers(host)
        largest = max(layer.nbytes + 512 * len(layer.buffers) for layer in layers)
        halves = (device.place(largest), device.place(largest))
        small = _Small(host.place(1 << 20), host.place(1 << 20), device.place(1 << 20))
        while True:
            yield from _load(layers[0], halves[0])
            yield Synchronize()
            yield small.store(self.batch * self.prompt)  # the mask
            for token in range(self.tokens):
                new = self.prompt if token == 0 else 1
                for index, layer in enumerate(layers):
                    last = token == self.tokens - 1 and index == len(layers) - 1
                    if not last:
                        place = halves[(index + 1) % 2]
                        yield from _load(layers[(index + 1) % len(layers)], place)
                    if index == 0:
                        yield small.store(self.batch * new * 4)  # the ids
                    yield self._compute(layer, new, self.prompt + token)
                    if index == len(layers) - 1:
                        yield small.fetch(self.batch * 8)
                    yield Synchronize()
                yield Done(self.batch)

    def _layers(self, host: Placement) -> list[_Layer]:
        opt = self.opt
        # The output has a copy of the embedding of its own.
        kinds: list[tuple[str, tuple[Tensor, ...]]] = [
            ("input", (opt.tokens_table, opt.positions_table)),
            *[("attention", opt.attention), ("mlp", opt.mlp)] * opt.layers,
            ("output", (*opt.final_norm, opt.tokens_table)),
        ]
        return [self._layer(host, kind, tensors) for kind, tensors in kinds]

    def _layer(self, host: Placement, kind: str, tensors: tuple[Tensor, ...]) -> _Layer:
        buffers = [
            (host.place(nbytes), nbytes)
            for tensor in tensors
            for nbytes in (tensor.four_bit if self.four_bit else (tensor.nbytes,))
        ]
        return _Layer(kind, tuple(buffers), sum(tensor.nbytes for tensor in tensors))

    def _compute(self, layer: _Layer, new: int, context: int) -> Compute:
        """One layer for `new` tokens of each prompt, the last of which sees `context`."""
        opt, tokens = self.opt, self.batch * new
        activations = 4.0 * tokens * opt.hidden * HALF
        # Packed weights are read and written out in 16 bits before they are used.
        weights = layer.nbytes + 2.0 * layer.wide_nbytes if self.four_bit else float(layer.nbytes)
        if layer.kind == "attention":
            cache = float(self.batch * context * opt.kv_bytes)
            flops = opt.attention_flops(tokens, context - new / 2)
            return Compute(flops, weights + activations + cache, _COMPUTE, _ATTENTION_KERNELS)
        if layer.kind == "mlp":
            hidden = 2.0 * tokens * opt.ffn * HALF
            return Compute(
                opt.mlp_flops(tokens), weights + activations + hidden, _COMPUTE, _MLP_KERNELS
            )
        if layer.kind == "output":
            return Compute(
                opt.output_flops(self.batch), weights + activations, _COMPUTE, _OUTPUT_KERNELS
            )
        return Compute(0.0, activations, _COMPUTE, 3)


@dataclass(frozen=True, slots=True)
class _Small:
    """The copies of ids and masks: numpy arrays, so from pageable memory, and the program waits."""

    inputs: int
    outputs: int
    device: int

    def store(self, nbytes: int) -> Copy:
        return self._copy(Direction.H2D, self.inputs, nbytes)

    def fetch(self, nbytes: int) -> Copy:
        return self._copy(Direction.D2H, self.outputs, nbytes)

    def _copy(self, direction: Direction, address: int, nbytes: int) -> Copy:
        return Copy(direction, address, nbytes, self.device, _COMPUTE, blocking=True, pinned=False)


def _load(layer: _Layer, device: int) -> Iterator[Copy]:
    for address, nbytes in layer.buffers:
        yield Copy(Direction.H2D, address, nbytes, device, _WEIGHTS)
        device += -(-nbytes // 512) * 512
