"""vLLM with continuous batching, whose KV cache does not fit: requests are preempted by swapping.

The scheduler of vLLM as the paper used it (Kwon et al., SOSP 2023; `--swap-space`, left out since
0.11): requests are served in the order of arrival, a block table for each answer, all answers to
one prompt sharing its blocks. When the next token of a running request finds no free block, the one
that arrived last is preempted and all its blocks swapped out; nobody new is admitted before all of
those are back, the one preempted last first.

A block is swapped from and to pinned memory, on the stream that computes: as PipeLLM's integration
does it, gathered on the device, so that all its layers are one copy; or, `layered`, as vLLM did it
then, layer by layer, its keys and its values each in one copy.

Where the swap space is full the request loses its cache and begins again; vLLM would give up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from pipellm.transfers import Direction
from pipellm.workloads.blocks import Blocks, Request
from pipellm.workloads.events import Compute, Copy, Done, Event, Idle, Synchronize
from pipellm.workloads.lengths import Lengths
from pipellm.workloads.models import HALF, POSITIONS, Model
from pipellm.workloads.placement import Placement

GIB = 1 << 30
_UTILISATION = 0.9  # vLLM's --gpu-memory-utilization
_ACTIVATIONS = 2 * GIB  # what profiling sets aside, about
_WATERMARK = 0.01  # of all blocks stay free when somebody is admitted
_BATCH_TOKENS = 2 * POSITIONS  # of prompts, in one step
_PREFILL_KERNELS = 10  # per layer, about
_DECODE_KERNELS = 1  # a CUDA graph


@dataclass(frozen=True)
class VllmSwap:
    """A server under load. One unit is one token of one answer.

    With a `rate`, in requests per second, they arrive as a Poisson process at an empty server.
    Without, there is always one more waiting: the schedule does not depend on time, and what
    happens until the cache is full for the first time is left out.
    """

    opt: Model
    lengths: Lengths
    parallel: int = 2
    """Answers to each prompt; vLLM swaps only where there is more than one."""
    rate: float | None = None
    seed: int = 0
    memory: int = 80 * GIB
    """Of the device, in bytes."""
    swap_space: int = 4 * GIB
    """Host memory for swapped blocks, in bytes; vLLM's default."""
    block: int = 16
    """Tokens."""
    most_answers: int = 256
    """Running at a time (`--max-num-seqs`)."""
    layered: bool = False
    """Every layer of a block crosses by itself."""
    answered: Callable[[float, int], None] | None = field(default=None, compare=False)
    """Told of each request that is finished: seconds since it arrived, tokens of its answer."""
    name: str = field(default="vllm-swap", init=False)
    unit: str = field(default="tokens", init=False)

    @property
    def model(self) -> str:
        manner = " layered" if self.layered else ""
        return f"{self.opt.name} {self.lengths.name} n={self.parallel}{manner}"

    @property
    def copy_nbytes(self) -> int:
        """What of a block crosses at once."""
        return self.block_nbytes // self.copies_per_block

    @property
    def block_nbytes(self) -> int:
        """One block in all layers."""
        return self.opt.layers * self.block * self.opt.kv_bytes

    @property
    def copies_per_block(self) -> int:
        """Keys and values of each layer, or one."""
        return 2 * self.opt.layers if self.layered else 1

    @property
    def device_blocks(self) -> int:
        """How many the device's memory holds beside the weights. Raises ValueError if none."""
        room = int(self.memory * _UTILISATION) - self.opt.nbytes - _ACTIVATIONS
        if room < self.block_nbytes:
            raise ValueError(f"{self.opt.name} leaves no room in {self.memory / GIB:.0f} GiB")
        return room // self.block_nbytes

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        server = _Server(self, now)
        while self.rate is None:
            step = list(server.step())
            if server.full:
                yield from step
                break
        while True:
            yield from server.step()


class _Server:
    """The scheduler's state, and what its steps do."""

    def __init__(self, vllm: VllmSwap, now: Callable[[], float]) -> None:
        self._vllm = vllm
        self._now = now
        self._arrivals = Random(vllm.seed + 1)
        self._requests = vllm.lengths.requests(vllm.seed)
        self._device = Blocks(vllm.device_blocks)
        self._host = Blocks(vllm.swap_space // vllm.block_nbytes)
        host, device = Placement.host(), Placement.device()
        self._small = {way: host.place(1 << 20) for way in Direction}
        self._small_on_device = device.place(1 << 20)
        self._host_cache = host.place(vllm.swap_space)
        self._device_cache = device.place(vllm.device_blocks * vllm.block_nbytes)
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []  # in the order of arrival
        self._swapped: list[Request] = []  # the one preempted last comes last
        self._next_arrival = 0.0
        self._arrived: dict[int, float] = {}
        self._last = 0
        self.full = False
        """Whether somebody was preempted."""

    def step(self) -> Iterator[Event]:
        """One iteration of the engine."""
        self._arrive()
        outgoing = self._make_room()
        incoming = self._return() if not outgoing else []
        new = self._admit() if not outgoing and not self._swapped else []
        batch = new or self._running  # vLLM runs prompts by themselves
        if not batch:
            yield Idle(max(self._next_arrival - self._now(), 0.0))
            return
        for mapping in outgoing:
            yield from self._swap(Direction.D2H, mapping)
        for mapping in incoming:
            yield from self._swap(Direction.H2D, mapping)
        tokens = sum(one.prompt if new else one.parallel for one in batch)
        yield from self._inputs(tokens, batch)
        yield self._compute(tokens, batch, prefill=bool(new))
        yield self._copy_small(Direction.D2H, sum(one.parallel for one in batch) * 8)
        yield Synchronize()
        self._running += new
        yield Done(sum(one.parallel for one in batch))
        for request in batch:
            request.generated += 1
        for request in [one for one in self._running if one.finished]:
            self._running.remove(request)
            request.release(self._device)
            arrived = self._arrived.pop(request.number, None)
            if self._vllm.answered and arrived is not None:
                self._vllm.answered(self._now() - arrived, request.answer)

    def _arrive(self) -> None:
        rate = self._vllm.rate
        if rate is None:
            if not self._waiting:
                self._waiting.append(self._request())
            return
        while self._next_arrival <= self._now():
            self._waiting.append(self._request())
            self._arrived[self._waiting[-1].number] = self._next_arrival
            self._next_arrival += self._arrivals.expovariate(rate)

    def _request(self) -> Request:
        """The next one, no longer than fits into both memories."""
        vllm = self._vllm
        prompt, answer = next(self._requests)
        blocks = min(vllm.device_blocks // 2, vllm.swap_space // vllm.block_nbytes)
        longest = blocks // vllm.parallel * vllm.block
        self._last += 1
        prompt = min(prompt, longest - 1)
        return Request(self._last, prompt, min(answer, longest - prompt), vllm.parallel)

    def _make_room(self) -> list[list[tuple[int, int]]]:
        """Give every running request room for its next token, at the last one's cost."""
        moved, size = [], self._vllm.block
        kept: list[Request] = []
        queue = deque(self._running)
        while queue:
            request = queue.popleft()
            while self._device.free < request.room_needed(self._device, size):
                victim = queue.pop() if queue else request
                mapping = self._preempt(victim)
                if mapping:
                    moved.append(mapping)
                if victim is request:
                    break
            else:
                request.grow(self._device, size)
                kept.append(request)
        self._running = kept
        return moved

    def _preempt(self, request: Request) -> list[tuple[int, int]]:
        self.full = True
        if self._host.free < len(request.distinct):
            request.release(self._device)
            request.generated = 0
            self._waiting.appendleft(request)
            return []
        mapping = request.move(self._device, self._host)
        self._swapped.append(request)
        return mapping

    def _return(self) -> list[list[tuple[int, int]]]:
        moved = []
        while self._swapped:
            request = self._swapped[-1]
            needed = len(request.distinct) + request.parallel
            if self._device.free - needed < _WATERMARK * self._vllm.device_blocks:
                break
            moved.append(request.move(self._host, self._device))
            self._swapped.pop()
            request.grow(self._device, self._vllm.block)
            self._running.append(request)
        self._running.sort(key=lambda one: one.number)
        return moved

    def _admit(self) -> list[Request]:
        new: list[Request] = []
        vllm = self._vllm
        answers = sum(one.parallel for one in self._running)
        while self._waiting:
            request = self._waiting[0]
            needed = -(-request.prompt // vllm.block) + vllm.parallel
            answers += request.parallel
            if (
                answers > vllm.most_answers
                or self._device.free - needed < _WATERMARK * vllm.device_blocks
                or sum(one.prompt for one in new) + request.prompt > _BATCH_TOKENS
            ):
                break
            self._waiting.popleft()
            request.admit(self._device, vllm.block)
            new.append(request)
            if vllm.rate is None and not self._waiting:
                self._waiting.append(self._request())
        return new

    def _swap(self, direction: Direction, mapping: list[tuple[int, int]]) -> Iterator[Event]:
        """Blocks between the memories: `mapping` says from where to where."""
        vllm = self._vllm
        size, out = vllm.copy_nbytes, direction is Direction.D2H
        # Read once and written once, where the layers are gathered or scattered.
        shuffle = Compute(0.0, 2.0 * len(mapping) * vllm.block_nbytes)
        if out and not vllm.layered:
            yield shuffle
        host_blocks, device_blocks = vllm.swap_space // vllm.block_nbytes, vllm.device_blocks
        for part in range(vllm.copies_per_block):
            host = self._host_cache + part * host_blocks * size
            device = self._device_cache + part * device_blocks * size
            for source, target in mapping:
                on_device, on_host = (source, target) if out else (target, source)
                yield Copy(direction, host + on_host * size, size, device + on_device * size)
        if not out and not vllm.layered:
            yield shuffle

    def _inputs(self, tokens: int, batch: Sequence[Request]) -> Iterator[Copy]:
        """Ids, positions, slots, and block tables."""
        tables = sum(len(table) for one in batch for table in one.tables) * 4
        for nbytes in (8 * tokens, 8 * tokens, 8 * tokens, tables):
            yield self._copy_small(Direction.H2D, nbytes)

    def _copy_small(self, direction: Direction, nbytes: int) -> Copy:
        host, device = self._small[direction], self._small_on_device
        return Copy(direction, host, nbytes, device, blocking=True, pinned=False)

    def _compute(self, tokens: int, batch: Sequence[Request], *, prefill: bool) -> Compute:
        opt = self._vllm.opt
        seen = [one.prompt / 2 if prefill else float(one.context) for one in batch]
        counts = [one.prompt if prefill else one.parallel for one in batch]
        context = sum(s * c for s, c in zip(seen, counts, strict=True)) / tokens
        answers = sum(one.parallel for one in batch)
        flops = opt.layers * (opt.attention_flops(tokens, context) + opt.mlp_flops(tokens))
        cache = sum(one.context * one.parallel for one in batch) * opt.kv_bytes * opt.layers
        activations = 16.0 * tokens * opt.hidden * HALF * opt.layers
        return Compute(
            flops + opt.output_flops(answers),
            opt.nbytes + cache + activations,
            kernels=_PREFILL_KERNELS * opt.layers if prefill else _DECODE_KERNELS,
        )
