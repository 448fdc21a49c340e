"""Whatever a program does, the planner is never stuck, never unbounded and never wrong.

Random programs run on a small model of everything around the planner: host memory that changes
under it, workers that seal late or fail, swap-outs that land late, and a device that opens
consecutive IVs only. The model checks each action as it does it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipellm.plan import (
    PAPER,
    SERIAL,
    Action,
    Commit,
    Costs,
    Defer,
    IVError,
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
        validated = None
        if direction is Direction.H2D:
            content = self.read(self.host, address, nbytes)
            self.write(self.expected, device_address, content)
            self.pending[self.ordinal] = (transfer, content, self.now)
            candidate = self.planner.candidate(transfer)
            if candidate is not None and not self.live[candidate].dirty:
                validated = candidate
        self.do(self.planner.request(self.now, transfer, validated))
        if blocking:
            assert self.ordinal not in self.pending, "a blocking copy was not done"
            self.nothing_waits_on(stream)
        if not self.pending:
            there = self.read(self.device, device_address, nbytes)
            assert there == self.read(self.expected, device_address, nbytes), "overtaken"
        assert len(self.pending) <= CROWD + 1

    def sync(self, stream: int | None = None) -> None:
        self.do(self.planner.sync(stream))
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
            self.do(self.planner.written(address, nbytes))

    def free(self, address: int, nbytes: int) -> None:
        for transfer, _, _ in self.pending.values():
            if overlap(transfer.address, transfer.nbytes, address, nbytes):
                return
        self.do(self.planner.freed(address, nbytes))
        for one in self.live.values():
            assert not overlap(one.address, one.nbytes, address, nbytes)
        self.put(address, tuple(self.token() for _ in units(address, nbytes)))

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
                    content: tuple[int, ...] = ()
                    for chunk in range(messages(transfer.nbytes)):
                        content += one.sealed.get(chunk) or self.chunk(one, chunk)
                    self.send(transfer, content, iv, count)
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
                    assert (iv, count) == (self.next_iv_back, messages(transfer.nbytes))
                    self.next_iv_back += count
                    content = self.read(self.device, transfer.device_address, transfer.nbytes)
                    place = transfer.device_address
                    assert content == self.read(self.expected, place, transfer.nbytes)
                    self.landing.append((transfer, content))
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
        for out, _ in self.landing:
            assert not overlap(out.address, out.nbytes, one.address, one.nbytes)
        one.asked = action.last

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
            machine.do(machine.planner.expect([said[:2], said[2:]]))
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


RULES = st.builds(
    Rules,
    ahead=st.just(True),
    budget=st.sampled_from([0, CHUNK, 5 * CHUNK, 40 * CHUNK, 256 * CHUNK]),
)
COSTS = st.builds(Costs, nop_ns=st.sampled_from([1, 26_000, 10**9]))


@given(
    rules=RULES,
    costs=COSTS,
    program=st.lists(phases(), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
def test_every_request_is_sent_once_with_its_bytes_under_consecutive_ivs(
    rules: Rules, costs: Costs, program: list[Phase], seed: int
) -> None:
    planner = Planner(rules, costs)
    machine = Machine(planner, rules, seed)
    for phase in program:
        run(machine, phase)
        if machine.rng.random() < 0.2:
            machine.do(planner.rotate())
            assert not machine.live
            machine.next_iv = machine.next_iv_back = 1
    machine.do(planner.close())
    assert not machine.live
    assert not machine.pending
    assert machine.device == machine.expected
    assert planner.tally.hits == machine.hits


@given(program=st.lists(phases(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_events_give_the_same_actions(program: list[Phase], seed: int) -> None:
    def actions() -> list[Action]:
        planner = Planner(PAPER, Costs())
        machine = Machine(planner, PAPER, seed)
        done: list[Action] = []
        do = machine.do

        def record(some: Iterable[Action]) -> None:
            some = list(some)
            done.extend(some)
            do(some)

        machine.do = record  # type: ignore[method-assign,assignment]
        for phase in program:
            run(machine, phase)
        return done

    assert actions() == actions()


@given(program=st.lists(phases(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_without_speculation_every_copy_is_sealed_when_asked_for(
    program: list[Phase], seed: int
) -> None:
    planner = Planner(SERIAL, Costs())
    machine = Machine(planner, SERIAL, seed)
    for phase in program:
        run(machine, phase)
        assert not machine.ended
    assert planner.tally.nops == 0
    assert planner.tally.reorders == 0


# Single rules ----------------------------------------------------------------------------------


def loops(machine: Machine, buffers: Iterable[int], rounds: int, nbytes: int = 2 * CHUNK) -> None:
    """Load the buffers over and over, until their order is known; no time passes for sealing."""
    for _ in range(rounds):
        for unit in buffers:
            machine.copy(Direction.H2D, unit * UNIT, nbytes)


def machine_with(rules: Rules = PAPER, costs: Costs | None = None) -> Machine:
    return Machine(Planner(rules, costs or Costs()), rules, 0)


RING = tuple(range(0, 320, 32))


def test_a_loop_is_hit_without_a_nop_once_it_has_been_seen() -> None:
    machine = machine_with()
    loops(machine, RING, 3)
    before = machine.planner.tally.nops
    hits = machine.planner.tally.hits
    loops(machine, RING, 5)
    assert machine.planner.tally.hits - hits == 5 * len(RING)
    assert machine.planner.tally.nops == before


def test_a_changed_plaintext_costs_its_own_resealing_and_nothing_else() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    live = len(machine.live)
    machine.change(RING[0] * UNIT, UNIT, noticed=False)
    machine.copy(Direction.H2D, RING[0] * UNIT, 2 * CHUNK)
    assert machine.planner.tally.stale == 1
    assert machine.planner.tally.relinquishes == 1
    assert len(machine.live) >= live - 1


def test_a_request_that_is_ahead_waits_for_the_others_of_its_batch() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    nops = machine.planner.tally.nops
    machine.copy(Direction.H2D, RING[1] * UNIT, 2 * CHUNK)
    assert len(machine.pending) == 1
    machine.copy(Direction.H2D, RING[0] * UNIT, 2 * CHUNK)
    assert not machine.pending
    assert machine.planner.tally.nops == nops
    assert machine.planner.tally.reorders == 1


@pytest.mark.parametrize("ending", ["sync", "order", "clock", "blocking", "same bytes"])
def test_a_wait_ends(ending: str) -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    machine.copy(Direction.H2D, RING[1] * UNIT, 2 * CHUNK)
    assert machine.planner.waiting == 1
    assert machine.planner.deadline == machine.now + PAPER.patience_ns
    match ending:
        case "sync":
            machine.do(machine.planner.sync(0))
        case "order":
            machine.do(machine.planner.order(7))
            assert machine.pending
            machine.do(machine.planner.order(0))
        case "clock":
            machine.do(machine.planner.clock(machine.now + PAPER.patience_ns - 1))
            assert machine.pending
            machine.do(machine.planner.clock(machine.now + PAPER.patience_ns))
        case "blocking":
            machine.copy(Direction.H2D, SMALL_AREA * UNIT, 2048, blocking=True)
        case "same bytes":
            machine.copy(Direction.D2H, 5000 * UNIT, CHUNK, to=RING[1] * UNIT, stream=3)
    assert not machine.pending
    assert machine.planner.deadline is None
    assert machine.planner.tally.nops >= 1


def test_only_so_many_wait() -> None:
    machine = machine_with()
    buffers = range(0, 60 * 16, 16)
    loops(machine, buffers, 4, CHUNK)
    most = 0
    for unit in buffers[1:]:
        machine.copy(Direction.H2D, unit * UNIT, CHUNK)
        most = max(most, machine.planner.waiting)
    assert most == CROWD
    assert machine.planner.waiting < CROWD


def test_a_gap_is_closed_by_nops_and_what_was_skipped_is_given_up() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    relinquished, nops = machine.planner.tally.relinquishes, machine.planner.tally.nops
    machine.copy(Direction.H2D, RING[2] * UNIT, 2 * CHUNK, blocking=True)
    assert machine.planner.tally.nops == nops + 4
    assert machine.planner.tally.relinquishes == relinquished + 2


def test_a_gap_too_dear_for_nops_starts_over() -> None:
    machine = machine_with(costs=Costs(nop_ns=10**9))
    loops(machine, RING, 4)
    hits = machine.planner.tally.hits
    machine.copy(Direction.H2D, RING[2] * UNIT, 2 * CHUNK, blocking=True)
    assert machine.planner.tally.nops == 0
    loops(machine, RING[3:], 1)
    assert machine.planner.tally.hits >= hits + len(RING[3:]) - 1


def test_only_those_behind_are_lost_where_there_is_leeway() -> None:
    machine = machine_with()
    small = SMALL_AREA * UNIT
    for number in range(8):
        for unit in RING:
            for _ in range(number % 2 * 3 + 1):
                machine.copy(Direction.H2D, small, 2048)
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
    relinquished = machine.planner.tally.relinquishes
    for _ in range(4):
        machine.copy(Direction.H2D, small, 2048)
    assert machine.planner.tally.relinquishes == relinquished


def test_nothing_is_sealed_from_memory_that_a_swap_out_is_about_to_write() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    machine.copy(Direction.D2H, RING[3] * UNIT, 2 * CHUNK, to=9000 * UNIT, stream=1)
    loops(machine, RING[:3], 1)
    assert all(one.address != RING[3] * UNIT for one in machine.live.values())
    machine.sync()


def test_memory_that_cannot_be_watched_is_not_tried_again() -> None:
    machine = machine_with()
    loops(machine, RING, 3)
    address = RING[5] * UNIT
    [identity] = [i for i, one in machine.live.items() if one.address == address][:1]
    machine.do(machine.planner.refused(identity, Why.UNFIT))
    loops(machine, RING, 1)
    relinquished = machine.planner.tally.relinquishes
    loops(machine, RING, 5)
    assert machine.planner.tally.relinquishes == relinquished
    assert all(one.address != address for one in machine.live.values())


def test_a_buffer_that_always_changes_wastes_less_and_less() -> None:
    machine = machine_with()
    for number in range(100):
        for unit in RING:
            if unit == RING[4] and number > 3:
                machine.change(unit * UNIT, UNIT, noticed=False)
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
    assert machine.planner.tally.stale <= 15


def test_what_the_program_expects_is_sealed_ahead_in_its_order() -> None:
    machine = machine_with()
    rng = random.Random(0)
    for round_ in range(8):  # in the first, how many small transfers come in between is learned
        hits = machine.planner.tally.hits
        for buffer in range(6):
            machine.copy(Direction.D2H, buffer * 16 * UNIT, CHUNK)
        for out, _ in list(machine.landing):
            machine.land(out)
        order = rng.sample(range(6), 6)
        machine.do(machine.planner.expect([[(buffer * 16 * UNIT, CHUNK) for buffer in order]]))
        for buffer in order:
            machine.copy(Direction.H2D, buffer * 16 * UNIT, CHUNK)
        assert round_ == 0 or machine.planner.tally.hits - hits == len(order)
    assert machine.planner.tally.by_pattern["told"] >= 7 * 6


def test_small_transfers_without_end_do_not_reseal_without_end() -> None:
    machine = machine_with()
    loops(machine, RING, 4)
    for _ in range(10_000):
        machine.copy(Direction.H2D, SMALL_AREA * UNIT, 2048)
    assert machine.planner.tally.wasted_chunks <= 20 * 64


def test_dead_workers_make_it_slow_not_wrong() -> None:
    machine = machine_with()
    for _ in range(30):
        for unit in RING:
            machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)
            for identity in list(machine.live):
                machine.do(machine.planner.refused(identity, Why.FAILED))
    machine.sync()
    assert machine.planner.tally.hits == 0
    assert machine.planner.tally.sealed_ahead_chunks <= 10 * 64


def test_an_empty_copy_is_refused_and_the_last_iv_is_not_passed() -> None:
    planner = Planner(SERIAL, Costs())
    with pytest.raises(ValueError, match="empty"):
        planner.request(0, Transfer(Direction.H2D, 0, 0, 0))
    planner.ledger.send(1, planner.ledger.remaining)
    with pytest.raises(IVError, match="0 IVs left"):
        planner.request(0, Transfer(Direction.H2D, 0, 1, 0))
    planner.rotate()
    assert planner.request(0, Transfer(Direction.H2D, 0, 1, 0)) == [
        SealNow(Transfer(Direction.H2D, 0, 1, 0), 1, 1)
    ]
