"""Whatever a program does, the orders fit what is there, and the room is never exceeded."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipellm.predict.ranges import Range
from tests.prefetch.layer import MIB, TRANSFER, Layer

_BASE = 1 << 40
_STEP = 128 << 10
# Buffers of all lengths, odd ones too, that may share bytes.
_KEYS = st.builds(
    lambda at, nbytes: (_BASE + at * _STEP, nbytes),
    st.integers(0, 400),
    st.sampled_from([_STEP, _STEP + 1, 5 * _STEP, MIB, 3 * MIB, TRANSFER, 3 * TRANSFER + 7]),
)


class AnyProgram(RuleBasedStateMachine):
    """A planner that hears of everything at once."""

    prompt = True

    @initialize(room=st.sampled_from([TRANSFER, 3 * TRANSFER, 64 * MIB]))
    def begin(self, room: int) -> None:
        self.layer = Layer(room, prompt=self.prompt)

    @rule(
        keys=st.lists(_KEYS, min_size=1, max_size=8),
        times=st.integers(1, 5),
        link=st.integers(0, 9),
    )
    def repeat(self, keys: list[Range], times: int, link: int) -> None:
        for key in keys * times:
            for other in [other for other in self.layer.homeward if _share(key, other)]:
                self.layer.land(self.layer.homeward.index(other))
            self.layer.request(key)
            self.layer.transfer(link)

    @rule(
        keys=st.lists(_KEYS, min_size=1, max_size=6),
        newest_first=st.booleans(),
        link=st.integers(0, 9),
    )
    def swap(self, keys: list[Range], newest_first: bool, link: int) -> None:
        for key in keys:
            self.layer.read_back(key)
        self.layer.synchronize()
        self.layer.transfer(link)
        for key in keys[::-1] if newest_first else keys:
            self.layer.request(key)

    @rule(key=_KEYS)
    def read_back(self, key: Range) -> None:
        self.layer.read_back(key)

    @rule(at=st.integers(0, 9))
    def land(self, at: int) -> None:
        self.layer.land(at)

    @rule()
    def synchronize(self) -> None:
        self.layer.synchronize()

    @rule(times=st.integers(1, 20))
    def link(self, times: int) -> None:
        self.layer.transfer(times)

    @rule(key=_KEYS)
    def write(self, key: Range) -> None:
        self.layer.write(key)

    @rule(key=_KEYS)
    def free(self, key: Range) -> None:
        self.layer.free(key)

    @rule(key=_KEYS)
    def forbid(self, key: Range) -> None:
        self.layer.unfit.add(key)

    @rule()
    def drop(self) -> None:
        self.layer.drop()

    @rule(room=st.sampled_from([0, TRANSFER // 2, TRANSFER, 64 * MIB]))
    def resize(self, room: int) -> None:
        self.layer.resize(room)

    @rule(groups=st.lists(st.lists(_KEYS, max_size=4), max_size=3))
    def expect(self, groups: list[list[Range]]) -> None:
        self.layer.carry_out(self.layer.planner.expect(groups))

    @invariant()
    def the_room_is_kept(self) -> None:
        layer: Layer | None = getattr(self, "layer", None)
        if layer:
            assert layer.used <= max(layer.room, 0)

    @invariant()
    def telling_it_nothing_changes_nothing(self) -> None:
        layer: Layer | None = getattr(self, "layer", None)
        if layer and self.prompt:
            assert layer.planner.tell([]) == []


class AnyProgramHeardLate(AnyProgram):
    """A planner that hears of things in batches, while they go on."""

    prompt = False

    @rule()
    def hear(self) -> None:
        self.layer.tell()


def _share(one: Range, other: Range) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


TestAnyProgram = AnyProgram.TestCase
TestAnyProgram.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyProgramHeardLate = AnyProgramHeardLate.TestCase
TestAnyProgramHeardLate.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
