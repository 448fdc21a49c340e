"""FlexGen loads every weight once per token, in the same order, a layer ahead of its use."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import pytest

from pipellm.transfers import Direction
from pipellm.workloads.events import Compute, Copy, Done, Event, Synchronize
from pipellm.workloads.flexgen import FlexGen
from pipellm.workloads.models import Model

SMALL = Model.named("opt-125m")


def passes(workload: FlexGen, count: int) -> list[list[Event]]:
    """The first `count` tokens, each up to its Done."""
    events = workload.events(lambda: 0.0)
    return [list(_until_done(events)) for _ in range(count)]


def _until_done(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Done):
            return
        yield event


def loads(events: list[Event]) -> list[Copy]:
    return [
        event
        for event in events
        if isinstance(event, Copy) and event.direction is Direction.H2D and event.pinned
    ]


@pytest.mark.parametrize(("four_bit", "copies"), [(False, 197), (True, 272)])
def test_a_token_has_the_copies_that_flexgen_was_seen_to_make(four_bit: bool, copies: int) -> None:
    for token in passes(FlexGen(SMALL, four_bit=four_bit), 31)[1:]:
        assert len(loads(token)) == copies


@pytest.mark.parametrize("name", ["opt-30b", "opt-66b", "opt-175b"])
def test_a_token_loads_all_weights_once(name: str) -> None:
    model = Model.named(name)
    _, token = passes(FlexGen(model), 2)
    addresses = [copy.address for copy in loads(token)]
    assert len(set(addresses)) == len(addresses)
    # The output has a copy of the embedding of its own.
    assert sum(copy.nbytes for copy in loads(token)) == model.nbytes + model.tokens_table.nbytes


def test_tokens_load_the_same_buffers_in_the_same_order() -> None:
    _, one, other = passes(FlexGen(SMALL), 3)
    assert [c.address for c in loads(one)] == [c.address for c in loads(other)]


def test_no_two_buffers_share_a_byte() -> None:
    _, token = passes(FlexGen(SMALL, four_bit=True), 2)
    ranges = sorted((copy.address, copy.address + copy.nbytes) for copy in loads(token))
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))


def test_a_layer_is_computed_while_the_next_one_is_loaded_somewhere_else() -> None:
    _, token = passes(FlexGen(SMALL), 2)
    previous: set[int] = set()
    here: set[int] = set()
    for event in token:
        match event:
            case Copy(pinned=True, device_address=address):
                here.add(address)
            case Synchronize():
                assert not here & previous
                previous, here = here, set()
    computes = [event for event in token if isinstance(event, Compute)]
    assert len(computes) == 2 * SMALL.layers + 2


def test_an_epoch_ends_and_the_next_one_begins() -> None:
    workload = FlexGen(SMALL, tokens=2, prompt=8)
    events = list(islice(workload.events(lambda: 0.0), 3000))
    assert sum(event.units for event in events if isinstance(event, Done)) > 3 * workload.batch


def test_what_a_pass_computes_is_two_operations_for_each_parameter_and_token() -> None:
    model = Model.named("opt-30b")
    workload = FlexGen(model, batch=1, prompt=1, tokens=4)
    _, token = passes(workload, 2)
    flops = sum(event.flops for event in token if isinstance(event, Compute))
    assert flops == pytest.approx(2 * model.parameters, rel=0.01)
