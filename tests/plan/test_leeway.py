"""The leeway is what an overrun and a NOP cost, weighed against what was seen."""

from __future__ import annotations

from pipellm.plan.leeway import FIRST_GUESS, Leeway
from pipellm.predict import Prediction


def prediction(gap: int, pattern: str = "repetitive") -> Prediction:
    return Prediction(0, 1 << 20, 0, gap, 0.9, pattern)


def test_before_anything_was_seen_it_is_the_prototypes_constant() -> None:
    assert Leeway().margin(prediction(3), 100, 1) == FIRST_GUESS == 32


def test_a_pattern_that_is_always_right_needs_none() -> None:
    leeway = Leeway()
    for _ in range(8):
        leeway.learn(prediction(3), 0)
    assert leeway.margin(prediction(3), 10**6, 1) == 0


def test_it_covers_the_worst_seen_where_overruns_are_dear_and_none_where_nops_are() -> None:
    leeway = Leeway()
    for surplus in (0, 0, 0, 0, 0, 0, 2, 7):
        leeway.learn(prediction(3), surplus)
    assert leeway.margin(prediction(3), 10**6, 1) == 7
    assert leeway.margin(prediction(3), 1, 10**6) == 0


def test_it_forgets_what_no_longer_happens() -> None:
    leeway = Leeway()
    for surplus in [50] * 10 + [1] * 64:
        leeway.learn(prediction(3), surplus)
    assert leeway.margin(prediction(3), 10**6, 1) == 1


def test_each_pattern_has_its_own_errors_and_begins_with_those_of_all() -> None:
    leeway = Leeway()
    for _ in range(8):
        leeway.learn(prediction(3, "fifo"), 5)
    assert leeway.margin(prediction(3, "lifo"), 10**6, 1) == 5
    for _ in range(8):
        leeway.learn(prediction(3, "lifo"), 0)
    assert leeway.margin(prediction(3, "lifo"), 10**6, 1) == 0
    assert leeway.margin(prediction(3, "fifo"), 10**6, 1) == 5
