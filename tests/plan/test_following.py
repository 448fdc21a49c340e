"""To follow what the planner promised is to do what it would have said, and it hears of it later.

The same random programs as in `test_planner` run on the same model, which now asks only about what
does not fit. What was done without asking is told late, in batches, and what the planner orders
then meets a program that has gone on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipellm.plan import (
    PAPER,
    Action,
    Commit,
    Costs,
    IVError,
    Nop,
    Open,
    Planner,
    Relinquish,
    Rules,
    SealNow,
    Speculate,
)
from pipellm.plan.following import Following, Step
from pipellm.predict.ranges import Range
from pipellm.transfers import CHUNK, Direction, Transfer, messages
from tests.plan.machine import SMALL_AREA, UNIT, Machine, Phase, phases, run

Done = tuple[Transfer, int, bool, bool] | int | None


class FollowingMachine(Machine):
    """The model with a shell that follows; `late`: so many copies are done before one is told."""

    def __init__(self, planner: Planner, rules: Rules, seed: int, late: int) -> None:
        super().__init__(planner, rules, seed)
        self.following = Following()
        self.late = late
        self.done: deque[Done] = deque()
        self.has_landed: list[Transfer] = []
        self.untold: set[int] = set()  # ordinals
        self.used: set[int] = set()  # speculations that were taken, whatever the planner thinks
        self.asked = 0
        self.followed = 0

    def request(self, transfer: Transfer) -> None:
        if not self.following.fits(transfer, self.next_iv):
            self.ask()
            self.asked += 1
            super().request(transfer)
            self.promised()
            return
        self.followed += 1
        self.untold.add(transfer.ordinal)
        if transfer.direction is Direction.D2H:
            self.done.append((transfer, self.next_iv_back, True, False))
            self.receive(transfer, self.next_iv_back)
        else:
            self.follow(transfer, self.following.take(transfer))
        while len(self.done) > self.late:
            self.tell()

    def follow(self, transfer: Transfer, step: Step | None) -> None:
        one = self.live.pop(step.speculation, None) if step else None
        if step:
            self.used.add(step.speculation)
            self.ended.add(step.speculation)
        clean = one is None or not one.dirty
        late = one is not None and len(one.sealed) < messages(one.nbytes)
        self.done.append((transfer, self.next_iv, clean, late))
        if one is not None and clean:
            self.hits += 1
            content = self.content(one)
        else:
            content = self.read(self.host, transfer.address, transfer.nbytes)
        self.send(transfer, content, self.next_iv, messages(transfer.nbytes))

    def tell(self) -> None:
        """Of one thing that was done; the program may be further."""
        match self.done.popleft():
            case (transfer, iv, clean, late):
                self.do(self.planner.followed(transfer, iv, clean=clean, late=late))
                self.untold.discard(transfer.ordinal)
            case stream:
                self.do(self.planner.sync(stream))
        for landed in [one for one in self.has_landed if one.ordinal not in self.untold]:
            self.has_landed.remove(landed)
            self.do(self.planner.landed(landed))
        self.promised()

    def ask(self) -> None:
        """Before a question everything is told, and nothing is promised."""
        while self.done:
            self.tell()
        self.following.end()
        self.planner.recall()

    def promised(self) -> None:
        promised = self.planner.promise()
        if promised is None:
            self.following.end()
        else:
            self.following.extend(promised)

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Relinquish(speculation) if speculation in self.used:
                    self.used.remove(speculation)  # nothing of it is left
                case Speculate(speculation):
                    assert speculation not in self.used, "sealed again under IVs that were used"
                    super().do([action])
                case Commit() | SealNow() | Nop() | Open():
                    assert not self.done, "sent before what was done is told"
                    super().do([action])
                case _:
                    super().do([action])

    def landed(self, transfer: Transfer) -> None:
        if transfer.ordinal in self.untold:
            self.has_landed.append(transfer)
        else:
            super().landed(transfer)

    def wait(self, stream: int | None) -> None:
        if self.planner.waiting or not self.done:
            self.ask()
            super().wait(stream)
            self.promised()
        else:
            self.done.append(stream)

    def known_to_land(self) -> list[Transfer]:
        return [out for out in super().known_to_land() if out.ordinal not in self.untold]

    def written(self, address: int, nbytes: int) -> None:
        self.ask()
        super().written(address, nbytes)

    def freed(self, address: int, nbytes: int) -> None:
        self.ask()
        super().freed(address, nbytes)

    def expect(self, groups: Iterable[Sequence[Range]]) -> None:
        self.ask()
        super().expect(groups)
        self.promised()

    def rotate(self) -> None:
        self.ask()
        super().rotate()

    def close(self) -> None:
        self.ask()
        super().close()


RULES = st.builds(
    Rules,
    ahead=st.just(True),
    budget=st.sampled_from([0, CHUNK, 5 * CHUNK, 40 * CHUNK, 256 * CHUNK]),
)
COSTS = st.builds(Costs, nop_ns=st.sampled_from([1, 26_000, 10**9]))
LATE = st.sampled_from([0, 1, 3, 8, 50])


@given(
    rules=RULES,
    costs=COSTS,
    program=st.lists(phases(), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    late=LATE,
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
def test_every_request_is_sent_once_with_its_bytes_whoever_was_asked(
    rules: Rules, costs: Costs, program: list[Phase], seed: int, late: int
) -> None:
    machine = FollowingMachine(Planner(rules, costs), rules, seed, late)
    for phase in program:
        run(machine, phase)
        if machine.rng.random() < 0.2:
            machine.rotate()
    machine.close()
    # What was sealed from memory of which a swap-out was not told yet counts as spoilt.
    assert machine.planner.tally.hits <= machine.hits


class Messages:
    """What a device sees from here on: each message's copy (0: a NOP), whether it was a hit, its
    IV from the first on, and how many there are."""

    def __init__(self, machine: Machine) -> None:
        self.seen: list[tuple[int, int, int, int]] = []
        self._machine = machine
        self._first, self._hits = machine.next_iv, machine.hits
        self._copy = 0
        self._send, self._message = machine.send, machine.message
        machine.send, machine.message = self.send, self.message  # type: ignore[method-assign]

    def send(self, transfer: Transfer, content: tuple[int, ...], iv: int, count: int) -> None:
        self._copy = transfer.ordinal
        self._send(transfer, content, iv, count)
        self._copy = 0

    def message(self, iv: int, count: int) -> None:
        hits = self._machine.hits - self._hits
        self.seen.append((self._copy, hits, iv - self._first, count))
        self._message(iv, count)


def steady(machine: Machine, order: list[tuple[int, int]], smalls: list[int], rounds: int) -> None:
    """Swap-ins in a period, with so many small transfers before each; some return what went out."""
    for number in range(rounds):
        for (unit, count), small in zip(order, smalls, strict=False):
            for _ in range(small):
                machine.copy(Direction.H2D, SMALL_AREA * UNIT, 2048)
            machine.copy(Direction.H2D, unit * 32 * UNIT, count * UNIT)
            for one in machine.live.values():
                for chunk in range(one.asked):
                    one.sealed[chunk] = machine.chunk(one, chunk)
        if number % 3 == 2:
            machine.sync()


@given(
    order=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 28)),
        min_size=1,
        max_size=12,
        unique_by=lambda buffer: buffer[0],
    ),
    smalls=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    late=LATE,
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_program_that_keeps_its_habits_sends_the_same_messages_as_if_each_copy_were_asked_about(
    order: list[tuple[int, int]], smalls: list[int], late: int
) -> None:
    """Once both know them: until then they may lay out the line at other moments."""
    asking = Machine(Planner(PAPER, Costs()), PAPER, 0)
    following = FollowingMachine(Planner(PAPER, Costs()), PAPER, 0, late)
    seen = []
    for machine in (asking, following):
        steady(machine, order, smalls, 24)
        of_device = Messages(machine)
        steady(machine, order, smalls, 4)
        seen.append(of_device.seen)
        machine.close()
    assert seen[0] == seen[1]
    assert following.followed


def test_a_loop_that_is_known_is_followed_without_a_question() -> None:
    machine = FollowingMachine(Planner(PAPER, Costs()), PAPER, 0, late=3)
    ring = range(0, 320, 32)

    def loops(rounds: int) -> None:
        for _ in range(rounds):
            for unit in ring:
                machine.copy(Direction.H2D, unit * UNIT, 2 * CHUNK)

    loops(6)
    asked = machine.asked
    loops(10)
    assert machine.asked == asked
    machine.close()


def test_what_leaves_and_returns_is_sealed_ahead_although_its_places_were_promised() -> None:
    asking = Machine(Planner(PAPER, Costs()), PAPER, 0)
    following = FollowingMachine(Planner(PAPER, Costs()), PAPER, 0, late=0)
    for machine in (asking, following):
        for _ in range(42):
            for direction in (Direction.D2H, Direction.H2D):
                for unit in (0, 32):
                    machine.copy(direction, unit * UNIT, 2 * UNIT)
                machine.sync()
                for one in machine.live.values():
                    for chunk in range(one.asked):
                        one.sealed[chunk] = machine.chunk(one, chunk)
        machine.close()
    assert following.planner.tally.hits >= asking.planner.tally.hits * 3 // 4 > 0
    assert following.followed


def test_what_was_not_promised_is_refused() -> None:
    planner = Planner(PAPER, Costs())
    with pytest.raises(IVError, match="IV 7"):
        planner.followed(Transfer(Direction.H2D, 0, 64, 0), 7)


def test_a_small_transfer_does_not_use_up_the_number_of_a_promised_place() -> None:
    following = Following()
    small = Transfer(Direction.H2D, 0, 64, 0)
    assert not following.fits(small, 1)
    following.extend([Step(1, (4096, CHUNK), 2)])
    assert following.fits(small, 1)
    assert not following.fits(small, 2)
    assert not following.fits(Transfer(Direction.H2D, 4096, CHUNK, 0), 1)
    assert following.fits(Transfer(Direction.H2D, 4096, CHUNK, 0), 2)
    assert following.fits(Transfer(Direction.D2H, 4096, CHUNK, 0), 2)
