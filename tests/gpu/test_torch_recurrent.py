"""Recurrent layers train on the device as on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

pytestmark = pytest.mark.usefixtures("gpu")

LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
Layer = nn.LSTM | nn.GRU | nn.RNN
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "without bias": {"bias": False},
    "both ways, three layers": {"bidirectional": True, "num_layers": 3, "batch_first": True},
}


def on_both(module: nn.Module) -> tuple[Any, Any]:
    return module, copy.deepcopy(module).cuda()


def assert_same_gradients(host: nn.Module, device: nn.Module) -> None:
    for on_host, on_device in zip(host.parameters(), device.parameters(), strict=True):
        assert on_host.grad is not None
        assert on_device.grad is not None
        torch.testing.assert_close(on_device.grad.cpu(), on_host.grad, rtol=1e-4, atol=1e-5)


def run_on_both(
    host: Layer, device: Layer, x: torch.Tensor | rnn.PackedSequence
) -> list[torch.Tensor]:
    """Forward and backward on both, which must be equal; returns the device's results."""
    results = []
    for layer, where in (host, "cpu"), (device, "cuda"):
        output, state = layer(x.cpu() if where == "cpu" else x.cuda())
        flat = output.data if isinstance(output, rnn.PackedSequence) else output
        states = [*state] if isinstance(state, tuple) else [state]
        (flat.square().sum() + sum(s.sin().sum() for s in states)).backward()
        results.append([flat.detach(), *(s.detach() for s in states)])
    for on_host, on_device in zip(*results, strict=True):
        assert on_device.is_cuda
        torch.testing.assert_close(on_device.cpu(), on_host, rtol=1e-4, atol=1e-5)
    assert_same_gradients(host, device)
    return results[1]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_and_its_gradients_are_the_cpus(layer: type[Layer], name: str) -> None:
    torch.manual_seed(0)
    host, device = on_both(layer(5, 7, **OPTIONS[name]))
    run_on_both(host, device, torch.randn(3, 4, 5))


def test_an_lstm_with_projections_is_the_cpus() -> None:
    torch.manual_seed(0)
    host, device = on_both(nn.LSTM(5, 7, proj_size=3))
    run_on_both(host, device, torch.randn(3, 4, 5))


@pytest.mark.parametrize("layer", LAYERS)
def test_sequences_of_different_lengths_are_the_cpus(layer: type[Layer]) -> None:
    torch.manual_seed(0)
    host, device = on_both(layer(5, 7, num_layers=2, bidirectional=True))
    sequences = [torch.randn(length, 5) for length in (4, 2, 1)]
    run_on_both(host, device, rnn.pack_sequence(sequences))


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_single_steps_are_the_cpus(cell: type[nn.LSTMCell | nn.GRUCell | nn.RNNCell]) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    host, device = on_both(cell(5, 7))
    for module, where in (host, "cpu"), (device, "cuda"):
        state = None
        for _ in range(3):
            state = module(x.to(where), state)
        assert state is not None
        (sum(s.sum() for s in state) if isinstance(state, tuple) else state.sum()).backward()
    assert_same_gradients(host, device)


def test_dropout_between_layers_draws_from_the_devices_generator() -> None:
    layer = nn.LSTM(5, 7, num_layers=2, dropout=0.5).cuda()
    x = torch.randn(3, 4, 5, device="cuda")
    torch.manual_seed(3)
    host_state = torch.get_rng_state()
    first = layer(x)[0]
    assert torch.equal(torch.get_rng_state(), host_state)
    assert not torch.equal(layer(x)[0], first)
    torch.manual_seed(3)
    assert torch.equal(layer(x)[0], first)
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])


def test_second_derivatives_go_through_a_cell() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, dtype=torch.float64).cuda()
    x = torch.randn(2, 2, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], [x])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_runs_a_cell_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    host, device = on_both(nn.LSTM(5, 7))
    x = torch.randn(3, 4, 5)
    with torch.autocast("cuda", dtype=dtype):
        output = device(x.cuda())[0]
    assert output.dtype == dtype
    output.sum().backward()
    torch.testing.assert_close(output.float().cpu(), host(x)[0], rtol=0, atol=0.02)
