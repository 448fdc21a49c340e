# mypy: disable-error-code="no-untyped-call"
"""Each device draws from a generator of its own."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("gpu")


def test_a_seed_makes_the_same_numbers_again() -> None:
    for draw in (
        lambda: torch.randn(5, device="cuda"),
        lambda: torch.nn.functional.dropout(torch.ones(64, device="cuda")),
        lambda: torch.multinomial(torch.ones(9, device="cuda"), 4),
        lambda: torch.randperm(9, device="cuda"),
    ):
        torch.cuda.manual_seed(7)
        first = draw()
        torch.randn(3)  # the CPU's generator is another one
        torch.cuda.manual_seed(7)
        assert torch.equal(draw(), first)


def test_seeding_everything_seeds_every_device() -> None:
    torch.manual_seed(3)
    first = [torch.rand(4, device=f"cuda:{device}") for device in range(2)]
    torch.manual_seed(3)
    assert all(torch.equal(torch.rand(4, device=each.device), each) for each in first)


def test_drawing_on_the_device_leaves_the_cpus_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    torch.rand(100, device="cuda")
    torch.nn.functional.dropout(torch.ones(100, device="cuda"))
    assert torch.equal(torch.rand(4), expected)


def test_the_state_can_be_saved_and_restored() -> None:
    states = torch.cuda.get_rng_state_all()
    assert [state.device.type for state in states] == ["cpu"] * 2
    first = torch.rand(4, device="cuda:1")
    torch.cuda.set_rng_state_all(states)
    assert torch.equal(torch.rand(4, device="cuda:1"), first)
    assert len(torch.cuda.default_generators) == 2
    with torch.random.fork_rng(devices=[0]):
        torch.rand(4, device="cuda")


def test_a_generator_of_ones_own() -> None:
    generator = torch.Generator("cuda:1").manual_seed(1)
    assert generator.device == torch.device("cuda:1")
    first = torch.rand(4, device="cuda:1", generator=generator)
    again = torch.rand(4, device="cuda:1", generator=generator.manual_seed(1))
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.rand(4, device="cuda", generator=torch.Generator())
