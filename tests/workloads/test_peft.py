"""LoRA fetches every frozen matrix forward, and every layer again backward, in reverse."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pipellm.workloads.events import Compute, Copy, Done, Event
from pipellm.workloads.models import Model
from pipellm.workloads.peft import PeftLora
from pipellm.workloads.random_order import RandomOrder

SMALL = Model.named("opt-125m")


def step(events: Iterator[Event]) -> list[Event]:
    """Up to the next Done."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, Done):
            break
        found.append(event)
    return found


def fetches(events: list[Event]) -> list[tuple[int, int]]:
    return [(e.address, e.nbytes) for e in events if isinstance(e, Copy) and e.pinned]


def test_a_step_fetches_all_matrices_forward_and_the_layers_backward() -> None:
    stream = PeftLora(SMALL).events(lambda: 0.0)
    one, other = fetches(step(stream)), fetches(step(stream))
    assert one == other
    per_layer = 6
    embedding, layers = 2, SMALL.layers * per_layer
    forward = one[embedding : embedding + layers]
    output = one[embedding + layers]
    backward = one[embedding + layers + 1 :]
    assert output == one[0]
    assert len(set(forward)) == layers
    groups = [forward[i : i + per_layer] for i in range(0, layers, per_layer)]
    assert backward == [fetch for group in reversed(groups) for fetch in group]


def test_a_step_computes_three_passes() -> None:
    workload = PeftLora(Model.named("opt-13b"), batch=1)
    flops = sum(e.flops for e in step(workload.events(lambda: 0.0)) if isinstance(e, Compute))
    one_pass = 2 * workload.opt.parameters * workload.length
    assert 2.9 < flops / one_pass < 3.3  # forward, once more, and the gradient


def test_random_order_repeats_nothing_and_is_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> list[int]:
        events = islice(RandomOrder(seed=seed).events(lambda: 0.0), 3000)
        return [e.address for e in events if isinstance(e, Copy)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert len(set(order(1))) == 64
