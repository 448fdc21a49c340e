"""A small model of everything around a planner, and random programs that run on it.

Host memory that changes under it, workers that seal late or fail, swap-outs that land late, and a
device that opens consecutive IVs only. The model checks each action as it does it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from pipellm.plan import (
    Action,
    Commit,
    Defer,
    Nop,
    Open,
    Planner,
    Relinquish,
    Rules,
    SealNow,
    Speculate,
    Why,
)
from pipellm.plan.layout import HORIZON
from pipellm.plan.planner import CROWD
from pipellm.predict.ranges import Range
from pipellm.transfers import CHUNK, Direction, Transfer, messages

UNIT = 128 << 10  # bytes; what memory and its changes are counted in
SMALL_AREA = 1 << 20  # units; small transfers come from beyond here


@dataclass
class Ciphertext:
    """A speculation as the shell sees it."""

    address: int
    nbytes: int
    iv: int
    asked: int = 0
    dirty: bool = False
    sealed: dict[int, tuple[int, ...]] = field(default_factory=dict)  # chunk -> plaintext


class Machine:
    """Host memory, workers and device around one planner."""

    def __init__(self, planner: Planner, rules: Rules, seed: int) -> None:
        self.planner = planner
        self.rules = rules
        self.rng = random.Random(seed)
        self.now = 0
        self.tokens = 0
        self.host: dict[int, int] = {}  # unit -> what is there
        self.device: dict[int, int] = {}
        self.expected: dict[int, int] = {}  # device memory, had all copies been done at once
        self.next_iv = 1
        self.next_iv_back = 1
        self.live: dict[int, Ciphertext] = {}
        self.ended: set[int] = set()
        self.pending: dict[int, tuple[Transfer, tuple[int, ...], int]] = {}
        self.landing: list[tuple[Transfer, tuple[int, ...]]] = []
        self.hits = 0
        self.ordinal = 0

    # The program -------------------------------------------------------------------------------

    def copy(
        self,
        direction: Direction,
        address: int,
        nbytes: int,
        *,
        to: int | None = None,
        stream: int = 0,
        blocking: bool = False,
    ) -> None:
        self.ordinal += 1
        self.now += 1000
        device_address = address if to is None else to
        transfer = Transfer(
            direction,
            address,
            nbytes,
            device_address,
            stream=stream,
            blocking=blocking,
            ordinal=self.ordinal,
        )
        for out, _ in list(self.landing):
            if overlap(out.address, out.nbytes, address, nbytes):
                self.land(out)
        if direction is Direction.H2D:
            content = self.read(self.host, address, nbytes)
            self.write(self.expected, device_address, content)
            self.pending[self.ordinal] = (transfer, content, self.now)
        self.request(transfer)
        if blocking:
            assert self.ordinal not in self.pending, "a blocking copy was not done"
            self.nothing_waits_on(stream)
        if not self.pending:
            there = self.read(self.device, device_address, nbytes)
            assert there == self.read(self.expected, device_address, nbytes), "overtaken"
        assert len(self.pending) <= CROWD + 1

    def request(self, transfer: Transfer) -> None:
        candidate = self.planner.candidate(transfer)
        unchanged = candidate is not None and not self.live[candidate].dirty
        self.do(self.planner.request(self.now, transfer, candidate if unchanged else None))

    def expect(self, groups: Iterable[Sequence[Range]]) -> None:
        self.do(self.planner.expect(groups))

    def rotate(self) -> None:
        self.do(self.planner.rotate())
        assert not self.live
        self.next_iv = self.next_iv_back = 1

    def close(self) -> None:
        self.do(self.planner.close())
        assert not self.live
        assert not self.pending
        assert self.device == self.expected

    def wait(self, stream: int | None) -> None:
        self.do(self.planner.sync(stream))

    def sync(self, stream: int | None = None) -> None:
        self.wait(stream)
        self.nothing_waits_on(stream)
        for out, _ in list(self.landing):
            if stream in (None, out.stream):
                self.land(out)
        if stream is None:
            assert self.device == self.expected

    def nothing_waits_on(self, stream: int | None) -> None:
        assert not [1 for t, _, _ in self.pending.values() if stream in (None, t.stream)]

    def change(self, address: int, nbytes: int, *, noticed: bool) -> None:
        """The program writes, but not to what is still being copied."""
        for transfer, _, _ in self.pending.values():
            if overlap(transfer.address, transfer.nbytes, address, nbytes):
                return
        self.put(address, tuple(self.token() for _ in units(address, nbytes)))
        if noticed:
            self.written(address, nbytes)

    def written(self, address: int, nbytes: int) -> None:
        self.do(self.planner.written(address, nbytes))

    def free(self, address: int, nbytes: int) -> None:
        for transfer, _, _ in self.pending.values():
            if overlap(transfer.address, transfer.nbytes, address, nbytes):
                return
        self.freed(address, nbytes)
        for one in self.live.values():
            assert not overlap(one.address, one.nbytes, address, nbytes)
        self.put(address, tuple(self.token() for _ in units(address, nbytes)))

    def freed(self, address: int, nbytes: int) -> None:
        self.do(self.planner.freed(address, nbytes))

    # What happens meanwhile --------------------------------------------------------------------

    def something(self) -> None:
        """A worker seals a chunk, or gives up; a swap-out lands; time passes."""
        choice = self.rng.random()
        if choice < 0.75 and self.live:
            identity = self.rng.choice(list(self.live))
            one = self.live[identity]
            for chunk in range(one.asked):
                if chunk not in one.sealed:
                    one.sealed[chunk] = self.chunk(one, chunk)
                    break
            self.planner.sealed(identity, len(one.sealed))
        elif choice < 0.752 and self.live:
            identity = self.rng.choice(list(self.live))
            self.do(self.planner.refused(identity, self.rng.choice([Why.FAILED, Why.FULL])))
            assert identity in self.ended
        elif choice < 0.9 and self.landing:
            self.land(self.rng.choice(self.landing)[0])
        else:
            self.now += self.rng.randrange(300_000)
            self.do(self.planner.clock(self.now))
            for _, _, since in self.pending.values():
                assert self.now - since < self.rules.patience_ns

    def land(self, transfer: Transfer) -> None:
        for item in self.landing:
            if item[0] is transfer:
                self.landing.remove(item)
                self.put(transfer.address, item[1])
                break
        self.landed(transfer)

    def landed(self, transfer: Transfer) -> None:
        self.do(self.planner.landed(transfer))

    # The actions -------------------------------------------------------------------------------

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Speculate():
                    self.speculate(action)
                case Commit(speculation, transfer, iv, count):
                    one = self.end(speculation)
                    self.hits += 1
                    assert (one.address, one.nbytes) == (transfer.address, transfer.nbytes)
                    assert one.iv == iv
                    self.send(transfer, self.content(one), iv, count)
                case SealNow(transfer, iv, count):
                    content = self.read(self.host, transfer.address, transfer.nbytes)
                    self.send(transfer, content, iv, count)
                case Nop(iv, count):
                    assert count > 0
                    self.message(iv, count)
                case Defer(transfer):
                    assert transfer.ordinal in self.pending
                    assert not transfer.blocking
                case Relinquish(speculation):
                    self.end(speculation)
                case Open(transfer, iv, count):
                    assert count == messages(transfer.nbytes)
                    self.receive(transfer, iv)
        asked = sum(one.asked for one in self.live.values())
        assert asked <= self.rules.budget_chunks
        assert len(self.live) <= 2 * HORIZON + CROWD

    def speculate(self, action: Speculate) -> None:
        assert action.speculation not in self.ended
        one = self.live.setdefault(
            action.speculation, Ciphertext(action.address, action.nbytes, action.iv)
        )
        assert (one.address, one.nbytes, one.iv) == (action.address, action.nbytes, action.iv)
        assert action.first == one.asked < action.last <= messages(action.nbytes)
        for out in self.known_to_land():
            assert not overlap(out.address, out.nbytes, one.address, one.nbytes)
        one.asked = action.last

    def known_to_land(self) -> list[Transfer]:
        return [out for out, _ in self.landing]

    def end(self, speculation: int) -> Ciphertext:
        assert speculation not in self.ended, "a speculation ended twice"
        self.ended.add(speculation)
        return self.live.pop(speculation)

    def send(self, transfer: Transfer, content: tuple[int, ...], iv: int, count: int) -> None:
        _, requested, _ = self.pending.pop(transfer.ordinal)
        assert content == requested, "other bytes than requested"
        assert count == messages(transfer.nbytes)
        self.message(iv, count)
        self.write(self.device, transfer.device_address, content)

    def receive(self, transfer: Transfer, iv: int) -> None:
        assert iv == self.next_iv_back
        self.next_iv_back += messages(transfer.nbytes)
        content = self.read(self.device, transfer.device_address, transfer.nbytes)
        place = transfer.device_address
        assert content == self.read(self.expected, place, transfer.nbytes)
        self.landing.append((transfer, content))

    def message(self, iv: int, count: int) -> None:
        assert iv == self.next_iv, "the device would fail to authenticate this"
        self.next_iv += count

    # Memory ------------------------------------------------------------------------------------

    def token(self) -> int:
        self.tokens += 1
        return self.tokens

    def chunk(self, one: Ciphertext, index: int) -> tuple[int, ...]:
        first = one.address + index * CHUNK
        return self.read(self.host, first, min(CHUNK, one.address + one.nbytes - first))

    def content(self, one: Ciphertext) -> tuple[int, ...]:
        """What a speculation sends; what was not sealed is sealed now."""
        content: tuple[int, ...] = ()
        for chunk in range(messages(one.nbytes)):
            content += one.sealed.get(chunk) or self.chunk(one, chunk)
        return content

    def put(self, address: int, content: tuple[int, ...]) -> None:
        self.write(self.host, address, content)
        for one in self.live.values():
            if overlap(one.address, one.nbytes, address, len(content) * UNIT):
                one.dirty = True

    @staticmethod
    def read(memory: dict[int, int], address: int, nbytes: int) -> tuple[int, ...]:
        return tuple(memory.get(unit, 0) for unit in units(address, nbytes))

    @staticmethod
    def write(memory: dict[int, int], address: int, content: tuple[int, ...]) -> None:
        for i, token in enumerate(content):
            memory[address // UNIT + i] = token


def units(address: int, nbytes: int) -> range:
    return range(address // UNIT, -(-(address + nbytes) // UNIT))


def overlap(one: int, one_bytes: int, other: int, other_bytes: int) -> bool:
    return one < other + other_bytes and other < one + one_bytes


# Programs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """A stretch of a program with one habit."""

    habit: str
    buffers: tuple[tuple[int, int], ...]  # first unit and number of units
    rounds: int
    swaps: int  # in how many of twenty places two neighbours change places
    small: int  # in how many of ten places a small transfer comes in between
    writes: int  # in how many of a hundred places memory changes
    streams: int
    slots: int  # so many places on the device take turns; 0: each buffer has its own
    blocking: bool
    told: float  # how often the program says what it will load next, rightly or not


def phases() -> st.SearchStrategy[Phase]:
    buffer = st.tuples(st.integers(0, 300), st.integers(1, 28))
    return st.builds(
        Phase,
        habit=st.sampled_from(
            ["loop", "loop", "mirror", "random", "fifo", "lifo", "moving", "fresh"]
        ),
        buffers=st.lists(buffer, min_size=1, max_size=12).map(tuple),
        rounds=st.integers(1, 16),
        swaps=st.sampled_from([0, 0, 1, 5]),
        small=st.integers(0, 6),
        writes=st.sampled_from([0, 0, 1, 10]),
        streams=st.integers(1, 3),
        slots=st.sampled_from([0, 0, 1, 2, 3]),
        blocking=st.sampled_from([False, False, True]),
        told=st.sampled_from([0, 0, 0.1]),
    )


def run(machine: Machine, phase: Phase) -> None:
    """The program of one phase, with whatever happens meanwhile."""
    rng = machine.rng
    for number, (direction, unit, count) in enumerate(requests(phase, rng)):
        if rng.randrange(10) < phase.small:
            machine.copy(Direction.H2D, (SMALL_AREA + rng.randrange(4)) * UNIT, 2048, stream=0)
        address, nbytes = unit * UNIT, count * UNIT
        if rng.randrange(100) < phase.writes:
            machine.change(address, UNIT, noticed=rng.random() < 0.5)
        if rng.randrange(300) < phase.writes:
            machine.free(address, nbytes)
        machine.copy(
            direction,
            address,
            nbytes,
            to=(10_000 + number % phase.slots * 16 if phase.slots else unit) * UNIT,
            stream=rng.randrange(phase.streams),
            blocking=phase.blocking or rng.random() < 0.02,
        )
        for _ in range(rng.randrange(8)):
            machine.something()
        if rng.random() < 0.05:
            machine.sync(rng.choice([None, 0, 1]))
        if rng.random() < phase.told:
            said = [(at * UNIT, n * UNIT) for at, n in rng.choices(phase.buffers, k=6)]
            machine.expect([said[:2], said[2:]])
    machine.sync()


def requests(phase: Phase, rng: random.Random) -> Iterator[tuple[Direction, int, int]]:
    buffers = list(phase.buffers)
    for number in range(phase.rounds):
        match phase.habit:
            case "loop":
                order = buffers
            case "mirror":
                order = buffers + buffers[::-1]
            case "random":
                order = rng.choices(buffers, k=len(buffers))
            case "moving":  # the same sizes, elsewhere each time
                order = [(unit + 400 * (number + 1), count) for unit, count in buffers]
            case "fresh":
                order = [(rng.randrange(4000), rng.randint(1, 28)) for _ in buffers]
            case _:
                for unit, count in buffers:
                    yield Direction.D2H, unit, count
                back = buffers if phase.habit == "fifo" else buffers[::-1]
                order = [buffer for buffer in back if rng.random() < 0.9]
        order = list(order)
        for i in range(1, len(order)):
            if rng.randrange(20) < phase.swaps:
                order[i - 1], order[i] = order[i], order[i - 1]
        for unit, count in order:
            yield Direction.H2D, unit, count
