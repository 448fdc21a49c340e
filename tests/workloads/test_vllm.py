"""A server that runs out of KV blocks swaps requests out and the same bytes in again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.transfers import Direction
from pipellm.workloads.events import Copy, Done, Event
from pipellm.workloads.lengths import LENGTHS, Lengths
from pipellm.workloads.models import Model
from pipellm.workloads.vllm import GIB, VllmSwap

SMALL = Model("small", 2, 256, 4)


def small(**changes: object) -> VllmSwap:
    """A server with so little memory that it must swap."""
    arguments: dict[str, object] = {
        "opt": SMALL,
        "lengths": Lengths.named("sharegpt"),
        "memory": int((2 * GIB + SMALL.nbytes + 400 * 16 * 2048) / 0.9),
        "swap_space": 4 << 20,
        **changes,
    }
    return VllmSwap(**arguments)  # type: ignore[arg-type]


def events(workload: VllmSwap, count: int) -> Iterator[Event]:
    return islice(workload.events(lambda: 0.0), count)


def swaps(workload: VllmSwap, count: int = 20_000) -> list[Copy]:
    return [e for e in events(workload, count) if isinstance(e, Copy) and e.pinned]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    parallel=st.integers(1, 6),
    lengths=st.sampled_from(sorted(LENGTHS)),
    space=st.integers(3, 40),
    layered=st.booleans(),
)
def test_what_is_swapped_in_was_swapped_out_and_each_only_once(
    seed: int, parallel: int, lengths: str, space: int, layered: bool
) -> None:
    workload = small(
        seed=seed,
        parallel=parallel,
        lengths=Lengths.named(lengths),
        swap_space=space << 18,
        layered=layered,
    )
    outside: set[int] = set()
    for copy in swaps(workload, 5_000):
        assert copy.nbytes == workload.copy_nbytes
        if copy.direction is Direction.D2H:
            assert copy.address not in outside
            outside.add(copy.address)
        else:
            outside.remove(copy.address)


def test_what_left_last_returns_first() -> None:
    left: list[int] = []
    returned: set[int] = set()
    returns = 0
    for event in events(small(), 40_000):
        match event:
            case Copy(Direction.D2H, address, pinned=True):
                left.append(address)
            case Copy(Direction.H2D, address, pinned=True):
                returned.add(address)
            case Done():
                stays = len(left) - len(returned)
                assert set(left[stays:]) == returned
                returns += bool(returned)
                del left[stays:]
                returned.clear()
    assert returns > 10


def test_the_same_seed_gives_the_same_program() -> None:
    assert list(events(small(seed=3), 3000)) == list(events(small(seed=3), 3000))
    assert list(events(small(seed=3), 3000)) != list(events(small(seed=4), 3000))


def test_a_token_is_done_for_every_answer_that_runs() -> None:
    done = [e.units for e in events(small(parallel=3), 20_000) if isinstance(e, Done)]
    assert done
    assert all(units % 3 == 0 for units in done)


def test_a_block_of_opt_13b_is_swapped_whole_or_in_copies_of_160_kib() -> None:
    gathered = VllmSwap(Model.named("opt-13b"), Lengths.named("sharegpt"))
    layered = replace(gathered, layered=True)
    assert layered.copy_nbytes == 160 << 10
    assert gathered.copy_nbytes == gathered.block_nbytes == layered.block_nbytes == 80 * 160 << 10


def test_both_manners_swap_the_same_bytes() -> None:
    def per_step(layered: bool) -> list[int]:
        """Of the first steps, how many bytes were swapped in each."""
        steps, swapped = [], 0
        for event in events(small(layered=layered), 20_000):
            match event:
                case Copy(pinned=True):
                    swapped += event.nbytes
                case Done():
                    steps.append(swapped)
                    swapped = 0
        return steps[:1000]

    gathered, layered = per_step(False), per_step(True)
    count = min(len(gathered), len(layered))
    assert sum(gathered[:count]) > 0
    assert gathered[:count] == layered[:count]


def test_a_server_that_nobody_asks_waits_for_the_first_request() -> None:
    times = [0.0]
    generated = 0
    for event in islice(small(rate=2.0).events(lambda: times[-1]), 2000):
        times.append(times[-1] + getattr(event, "seconds", 0.01))
        generated += getattr(event, "units", 0)
    assert times[-1] > 1
    assert generated > 0


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        _ = VllmSwap(Model.named("opt-66b"), Lengths.named("alpaca")).device_blocks


@pytest.mark.parametrize("name", sorted(LENGTHS))
def test_lengths_have_the_published_means(name: str) -> None:
    drawn = list(islice(Lengths.named(name).requests(seed=0), 20_000))
    prompts, answers = zip(*drawn, strict=True)
    # The context's end cuts off the longest.
    assert sum(prompts) / len(prompts) == pytest.approx(LENGTHS[name].prompt.mean, rel=0.1)
    assert sum(answers) / len(answers) == pytest.approx(LENGTHS[name].answer.mean, rel=0.1)
    assert max(p + a for p, a in drawn) <= 2048
