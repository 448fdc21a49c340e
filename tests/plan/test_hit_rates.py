"""How many swap-ins are sent from a speculation, on traces as real programs make them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipellm.bench.decisions import (
    Sync,
    Trace,
    flexgen,
    hit_rate,
    layerwise,
    preemption,
    shuffled,
)
from pipellm.transfers import Direction

SWAPS_PER_TOKEN = 75


def test_flexgens_trace_is_as_it_was_seen() -> None:
    per_token = [
        sum(1 for step in flexgen(tokens=n) if not isinstance(step, Sync)) for n in (1, 2, 3)
    ]
    assert per_token[2] - per_token[1] == 197
    assert per_token[0] - 4 == 197, "the first token has transfers of its own"


def test_flexgen_is_foreseen_after_two_tokens() -> None:
    rate, planner = hit_rate(flexgen(tokens=12), skip=2 * SWAPS_PER_TOKEN)
    assert rate >= 0.98
    tally = planner.tally
    assert tally.wasted_chunks <= 0.05 * tally.sealed_ahead_chunks


@pytest.mark.parametrize("seed", range(4))
def test_preempted_requests_are_foreseen_though_some_return_without_a_load(seed: int) -> None:
    rate, _ = hit_rate(preemption(seed=seed), skip=200)
    assert rate >= 0.95


@pytest.mark.parametrize("seed", range(4))
def test_so_are_requests_that_return_oldest_first(seed: int) -> None:
    rate, _ = hit_rate(preemption(newest_first=False, seed=seed), skip=200)
    assert rate >= 0.95


def test_layers_that_return_in_order_are_foreseen() -> None:
    rate, planner = hit_rate(layerwise(), skip=48)
    assert rate >= 0.98
    assert {"fifo", "lifo"} & set(planner.tally.by_pattern)


@pytest.mark.parametrize("buffers", [4, 20, 200, 2000])
def test_a_random_order_wastes_next_to_nothing(buffers: int) -> None:
    _, planner = hit_rate(shuffled(buffers))
    assert planner.tally.wasted_chunks <= 50
    assert planner.tally.nops <= 50


@pytest.mark.parametrize("trace", [flexgen, preemption, layerwise, shuffled])
def test_a_trace_is_the_same_every_time(trace: Callable[[], Trace]) -> None:
    assert list(trace()) == list(trace())
    swaps = [step for step in trace() if not isinstance(step, Sync)]
    assert any(step.direction is Direction.H2D for step in swaps)
