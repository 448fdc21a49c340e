"""Language models train and generate on the device as on the CPU."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:  # it takes seconds, and every process that runs tests imports all of them
    from transformers import OPTForCausalLM

    Models = tuple[OPTForCausalLM, OPTForCausalLM]

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture
def models() -> Models:
    """A tiny OPT on the CPU, and the same one on the device."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        ffn_dim=64,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        dropout=0.0,
        attn_implementation="eager",
    )
    host = OPTForCausalLM(config)
    return host, copy.deepcopy(host).to("cuda")


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(4, 96, (2, 12), generator=torch.Generator().manual_seed(1))


def loss(model: OPTForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    device = next(model.parameters()).device
    result: torch.Tensor = model(
        input_ids=tokens.to(device), labels=tokens.to(device), use_cache=False
    ).loss
    return result


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"fused": True}])
def test_training_with_adamw_equals_the_cpus(
    models: Models, tokens: torch.Tensor, options: dict[str, Any]
) -> None:
    history: list[list[float]] = []
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **options)
        history.append([])
        for _ in range(5):
            step_loss = loss(model, tokens)
            step_loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            history[-1].append(step_loss.item())
    assert history[1] == pytest.approx(history[0], abs=1e-5)
    for on_host, on_device in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert on_device.is_cuda
        torch.testing.assert_close(on_device.cpu(), on_host, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_generation_equals_the_cpus(
    models: Models, tokens: torch.Tensor, options: dict[str, int]
) -> None:
    first, second = (
        model.eval().generate(tokens.to(model.device), max_new_tokens=8, do_sample=False, **options)
        for model in models
    )
    assert second.is_cuda
    assert torch.equal(second.cpu(), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_with_a_gradient_scaler(
    models: Models, tokens: torch.Tensor, dtype: torch.dtype
) -> None:
    host, device = models
    optimizer = torch.optim.AdamW(device.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", dtype=dtype):
        mixed = loss(device, tokens)
    assert mixed.item() == pytest.approx(loss(host, tokens).item(), abs=0.05)
    scaler.scale(mixed).backward()
    scaler.step(optimizer)
    scaler.update()
    assert loss(device, tokens).item() < mixed.item()


def test_a_model_in_half_precision(models: Models, tokens: torch.Tensor) -> None:
    half = copy.deepcopy(models[1]).half()
    assert loss(half, tokens).item() == pytest.approx(loss(models[0], tokens).item(), abs=0.05)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_gradient_checkpointing_changes_no_gradient(models: Models, tokens: torch.Tensor) -> None:
    host, device = models
    device.train().gradient_checkpointing_enable()
    for model in models:
        loss(model, tokens).backward()
    for on_host, on_device in zip(host.parameters(), device.parameters(), strict=True):
        assert on_device.grad is not None
        torch.testing.assert_close(on_device.grad.cpu(), on_host.grad, rtol=0, atol=1e-5)


def test_a_checkpoint_recomputes_the_same_dropout() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8).cuda()
    layer = torch.nn.Sequential(linear, torch.nn.Dropout(0.5))
    x = torch.randn(4, 8, device="cuda", requires_grad=True)
    result = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    assert isinstance(result, torch.Tensor)
    result.sum().backward()
    kept = (result != 0).float()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * kept @ linear.weight)


@pytest.mark.filterwarnings("ignore:PyTorch is not compiled with NCCL")
def test_data_parallel_over_two_devices_equals_one() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4).cuda()
    x = torch.randn(8, 6, device="cuda")
    gradients = []
    for module in layer, torch.nn.DataParallel(layer, device_ids=[0, 1]):
        layer.zero_grad()
        module(x).square().sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0])


EXPERTS: dict[str, tuple[str, dict[str, int]]] = {
    "Mixtral": ("mixtral", {"num_local_experts": 4}),
    "Qwen3-MoE": ("qwen3_moe", {"num_experts": 4, "moe_intermediate_size": 16}),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_a_mixture_of_experts_equals_the_cpus(name: str, tokens: torch.Tensor) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    family, experts = EXPERTS[name]
    torch.manual_seed(0)
    host = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            family,
            vocab_size=96,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_experts_per_tok=2,
            head_dim=8,
            max_position_embeddings=64,
            **experts,
        )
    )
    device = copy.deepcopy(host).cuda()
    losses = [loss(each, tokens) for each in (host, device)]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-5)
    for each in losses:
        each.backward()
    for on_host, on_device in zip(host.parameters(), device.parameters(), strict=True):
        if on_host.grad is None:  # of an expert that no token chose
            continue
        torch.testing.assert_close(on_device.grad.cpu(), on_host.grad, rtol=1e-3, atol=1e-5)
