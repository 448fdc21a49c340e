"""How long the executor thinks is that of its answers, and there are none to what it promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipellm.plan import PAPER
from pipellm.simulate.thinking import microseconds
from pipellm.workloads.events import Done, Event, Synchronize
from tests.simulate.scripts import Script, load_of, store_of


@dataclass(frozen=True)
class Rounds(Script):
    """The script, again and again."""

    def events(self, now: Callable[[], float]) -> Iterator[Event]:
        for _ in range(200):
            yield from self.told
            yield Done()


STEADY = Rounds([*(load_of(i) for i in range(10)), store_of(20), Synchronize()])


def test_a_program_that_is_not_known_yet_is_thought_about() -> None:
    assert microseconds(STEADY, PAPER) > 0


def test_a_program_whose_every_copy_was_promised_is_not() -> None:
    assert microseconds(STEADY, PAPER, warm=50) == 0
