"""What a decision of the planner costs, and how often it foresees a swap-in.

    python -m pipellm.bench.decisions

Replays synthetic traces through the planner with an ideal shell: every speculation is sealed at
once, nothing is ever written to. The times are this machine's, in Python, per request: validation,
sealing and sending are not in them. The hit rates are properties of the traces and the code alone.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from pipellm import prefetch
from pipellm.plan import PAPER, Commit, Costs, Open, Planner, SealNow, Speculate
from pipellm.plan.actions import Action
from pipellm.prefetch import News, What
from pipellm.transfers import Direction, Transfer

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Sync:
    """The program waits for everything."""


Trace = Iterable[Transfer | Sync]


def load(address: int, nbytes: int, *, blocking: bool = False, stream: int = 0) -> Transfer:
    """A host-to-device copy; its device side is as far apart as its host side."""
    return Transfer(Direction.H2D, address, nbytes, address, stream=stream, blocking=blocking)


def store(address: int, nbytes: int) -> Transfer:
    """A device-to-host copy."""
    return Transfer(Direction.D2H, address, nbytes, address, stream=1)


def flexgen(tokens: int = 8, layers: int = 12, hidden: int = 768) -> Iterator[Transfer | Sync]:
    """OPT's weights from pinned memory, 16-bit: 197 loads per token for 12 layers, 195 in the last.

    As FlexGen was seen to do it (recipes): the same buffers in the same order, a synchronisation
    per layer, the next token's embeddings loaded at the end of the one before. The first token, the
    prefill, brings transfers of its own.
    """
    square, wide, thin = 2 * hidden * hidden, 8 * hidden * hidden, 2 * hidden
    attention = [square, thin] * 4 + [thin, thin]
    mlp = [wide, 4 * thin, wide, thin, thin, thin]
    token, position = 2 * 50272 * hidden, 2 * 2050 * hidden
    sizes = [(attention + mlp) for _ in range(layers)]
    groups = [[token, position], *sizes, [thin, thin, token]]
    weights: list[list[Transfer]] = []
    address = 1 << 40
    for group in groups:
        placed: list[Transfer] = []
        for nbytes in group:
            placed.append(load(address, nbytes))
            address += nbytes + 4096
        weights.append(placed)
    for one_off in (4 * KIB, 256 * KIB, 600, 600):
        yield load(address, one_off)
        address += one_off
    yield from weights[0]
    for number in range(tokens):
        for placed in weights[1:]:
            yield from placed
            yield Sync()
        if number < tokens - 1:
            yield from weights[0]
            yield Sync()


def preemption(
    rounds: int = 400, *, newest_first: bool = True, seed: int = 0
) -> Iterator[Transfer | Sync]:
    """Requests swapped out whole, and back in: the newest first, or the oldest.

    Of those that come back, one in seven does so without a load, and one in twenty out of turn.
    Swapped-out blocks find room wherever some is free, and small transfers come in between.
    """
    rng = random.Random(seed)
    free = [(1 << 41) + i * MIB for i in range(4096)]
    waiting: list[list[int]] = []
    for _ in range(rounds):
        for _ in range(rng.randint(0, 3)):
            blocks = [free.pop(rng.randrange(len(free))) for _ in range(rng.randint(2, 24))]
            waiting.append(blocks)
            for address in blocks:
                yield store(address, 512 * KIB)
            yield Sync()
        for _ in range(rng.randint(0, min(3, len(waiting)))):
            turn = 1 if len(waiting) > 1 and rng.random() < 0.05 else 0
            blocks = waiting.pop(-1 - turn if newest_first else turn)
            for _ in range(rng.randint(2, 4)):
                yield load(1 << 30, 2 * KIB)
            if rng.random() < 6 / 7:
                for address in blocks:
                    yield load(address, 512 * KIB, stream=2)
            yield Sync()
            free += blocks


def layerwise(steps: int = 60, layers: int = 24) -> Iterator[Transfer | Sync]:
    """The KV of each layer leaves and returns in the order of the layers, somewhere else each time.

    One in fifty never returns.
    """
    rng = random.Random(1)
    address = 1 << 42
    for _ in range(steps):
        out = []
        for _ in range(layers):
            nbytes = 2 * MIB
            yield store(address, nbytes)
            out.append(load(address, nbytes, stream=2))
            address += nbytes
        yield Sync()
        for back in out:
            if rng.random() < 0.98:
                yield load(1 << 30, 2 * KIB)
                yield back
        yield Sync()


def shuffled(buffers: int = 200, requests: int = 4000, seed: int = 2) -> Iterator[Transfer | Sync]:
    """Loads in a uniformly random order."""
    rng = random.Random(seed)
    places = [load((1 << 43) + i * 8 * MIB, rng.randint(1, 8) * MIB) for i in range(buffers)]
    for _ in range(requests):
        yield rng.choice(places)
        if rng.random() < 0.2:
            yield Sync()


def cycle(buffers: int, requests: int) -> Iterator[Transfer | Sync]:
    """So many buffers, one after the other, over and over."""
    for i in range(requests):
        yield load((1 << 44) + i % buffers * 2 * MIB, MIB)


def stack(buffers: int, requests: int) -> Iterator[Transfer | Sync]:
    """So many buffers swapped out, then the newest swapped in and another out, over and over."""
    for i in range(buffers):
        yield store((1 << 44) + i * 2 * MIB, MIB)
        yield Sync()
    for _ in range(requests):
        yield load((1 << 44) + (buffers - 1) * 2 * MIB, MIB)
        yield load((1 << 44) + (buffers - 2) * 2 * MIB, MIB)
        yield store((1 << 44) + (buffers - 2) * 2 * MIB, MIB)
        yield Sync()
        yield store((1 << 44) + (buffers - 1) * 2 * MIB, MIB)
        yield Sync()


class IdealShell:
    """Seals at once and finds everything unchanged; counts what became of each swap-in."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.swaps: list[bool] = []
        """Whether each swap-in was sent from a speculation, in the order sent."""
        self.request_ns: list[int] = []
        """What each request took the planner."""

    def replay(self, trace: Trace) -> None:
        """Run a trace through the planner."""
        planner, now = self.planner, 0
        for step in trace:
            now += 10_000
            if isinstance(step, Sync):
                self._do(planner.sync())
                continue
            begun = time.perf_counter_ns()
            actions = planner.request(now, step, planner.candidate(step))
            self.request_ns.append(time.perf_counter_ns() - begun)
            self._do(actions)

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Speculate(speculation, last=last):
                    self.planner.sealed(speculation, last)
                case Commit():
                    self.swaps.append(True)
                case SealNow(transfer) if transfer.nbytes >= 128 * KIB:
                    self.swaps.append(False)
                case Open(transfer):
                    self._do(self.planner.landed(transfer))


def hit_rate(trace: Trace, skip: int = 0) -> tuple[float, Planner]:
    """The share of swap-ins, after the first `skip`, that were sent from a speculation."""
    shell = IdealShell(Planner(PAPER, Costs()))
    shell.replay(trace)
    swaps = shell.swaps[skip:]
    return sum(swaps) / max(len(swaps), 1), shell.planner


def _cost(trace: Trace, settled: int) -> tuple[float, float]:
    """Median and 99th percentile of a request in µs, once `settled` requests have passed."""
    shell = IdealShell(Planner(PAPER, Costs()))
    shell.replay(trace)
    times = [ns / 1000 for ns in shell.request_ns[settled:]]
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def told(trace: Trace, room: int = 2 << 30, batch: int = 64) -> tuple[float, prefetch.Tally]:
    """Microseconds of a copy for the planner for prefetching, which hears of them in batches.

    What it orders is there at once.
    """
    planner = prefetch.Planner()
    there: set[tuple[int, int]] = set()
    news = [News(What.ROOM, 0, room)]
    copies = spent = 0
    for step in trace:
        if isinstance(step, Sync):
            news.append(News(What.SYNCHRONIZE))
        elif step.direction is Direction.D2H:
            there.discard((step.address, step.nbytes))
            news += [
                News(what, step.address, step.nbytes) for what in (What.READ_BACK, What.LANDED)
            ]
        else:
            key = (step.address, step.nbytes)
            found = step.nbytes if key in there else 0
            there.discard(key)
            news.append(News(What.HIT if found else What.MISS, *key, step.stream, found))
        copies += isinstance(step, Transfer)
        if len(news) < batch:
            continue
        begun = time.perf_counter_ns()
        orders = planner.tell(news)
        spent += time.perf_counter_ns() - begun
        news = []
        for order in orders:
            if isinstance(order, prefetch.Evict):
                there.difference_update(order.pieces)
            else:
                there.update(order.pieces)
                news += [News(What.TRANSFERRED, *piece) for piece in order.pieces]
    return spent / max(copies, 1) / 1000, planner.tally


def main() -> None:
    """Print all tables."""
    console = Console()
    table = Table(title="one request, Python, µs on this machine: median (99th percentile)")
    makers: dict[str, Callable[[int, int], Trace]] = {"period": cycle, "stack": stack}
    for heading in ("live buffers", *makers, "random order"):
        table.add_column(heading, justify="right")
    for buffers in (10, 100, 1000, 10_000):
        row = [_cost(make(buffers, 2 * buffers + 3000), 2 * buffers) for make in makers.values()]
        row.append(_cost(shuffled(buffers, 2 * buffers + 3000), 2 * buffers))
        table.add_row(f"{buffers:,}", *(f"{median:.1f} ({tail:.0f})" for median, tail in row))
    console.print(table)

    table = Table(title="swap-ins sent from a speculation; NOPs and waste per chunk sealed ahead")
    for heading in ("trace", "hit rate", "NOPs", "wasted"):
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    traces: dict[str, tuple[Trace, int]] = {
        "FlexGen, after two tokens": (flexgen(), 2 * 75),
        "preemption, newest first": (preemption(), 0),
        "preemption, oldest first": (preemption(newest_first=False), 0),
        "layer-wise": (layerwise(), 0),
        "random": (shuffled(), 0),
    }
    for name, (trace, skip) in traces.items():
        rate, planner = hit_rate(trace, skip)
        tally = planner.tally
        sealed = max(tally.sealed_ahead_chunks, 1)
        nops, wasted = tally.nops / sealed, tally.wasted_chunks / sealed
        table.add_row(name, f"{rate:.3f}", f"{nops:.2f}", f"{wasted:.2f}")
    console.print(table)

    table = Table(title="prefetching, told in batches of 64: one copy, µs; found; sent in vain")
    for heading in ("trace", "µs", "found", "in vain"):
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    again: dict[str, Trace] = {
        "FlexGen": flexgen(),
        "preemption, newest first": preemption(),
        "preemption, oldest first": preemption(newest_first=False),
        "layer-wise": layerwise(),
        "random": shuffled(),
    }
    for name, trace in again.items():
        each, counts = told(trace)
        table.add_row(name, f"{each:.1f}", f"{counts.hit_rate:.3f}", f"{counts.in_vain:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
