"""Unmodified transformers, several families of models partly in host memory, under every policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.systems.conftest import POLICIES, Launcher

pytestmark = pytest.mark.long

# `device_map="auto"` puts as much on the device as `max_memory` lets it.
GENERATING = """
import json, torch
from transformers import AutoConfig, AutoModelForCausalLM

WORDS = 8
SHAPE = dict(vocab_size=1000, hidden_size=256, intermediate_size=1024, num_hidden_layers=4,
             num_attention_heads=4, bos_token_id=None, eos_token_id=None, pad_token_id=None)
FEWER = dict(num_key_value_heads=2)  # than queries
FAMILIES = dict(llama=FEWER, qwen2=FEWER, qwen3=FEWER | dict(head_dim=64), gpt_neox={})
prompt = torch.arange(1, 9).unsqueeze(0)

for family, extra in FAMILIES.items():
    for dtype in (torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **SHAPE, **extra)
        made = AutoModelForCausalLM.from_config(config).to(dtype)
        made.save_pretrained("checkpoint")
        nbytes = sum(parameter.nbytes for parameter in made.parameters())
        model = AutoModelForCausalLM.from_pretrained(
            "checkpoint", device_map="auto", max_memory={0: nbytes * 2 // 3, "cpu": nbytes}
        )
        away = sum(p.nbytes for p in model.parameters() if p.device.type == "meta")
        assert 0 < away < nbytes and model.dtype == dtype
        output = model.generate(prompt.cuda(), max_new_tokens=WORDS, do_sample=False)
        print(json.dumps(dict(family=family, dtype=str(dtype), tokens=output[0, 8:].tolist(),
                              crossed=away * WORDS)))
"""

FAMILIES = ("llama", "qwen2", "qwen3", "gpt_neox")


@dataclass(frozen=True)
class Outcome:
    """What one policy gave."""

    said: list[dict[str, Any]]
    statistics: dict[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    outcomes = {}
    for policy in POLICIES:
        launch = Launcher(tmp_path_factory.mktemp(policy))
        with pytest.MonkeyPatch.context() as here:
            here.chdir(launch.folder)
            here.setenv("HF_HUB_OFFLINE", "1")
            result = launch(GENERATING, policy=policy)
        assert result.returncode == 0, result.stderr
        said = [json.loads(line) for line in result.stdout.splitlines()]
        outcomes[policy] = Outcome(said, launch.statistics)
    return outcomes


@pytest.mark.parametrize("policy", POLICIES)
def test_every_family_generates_the_same_tokens(outcomes: dict[str, Outcome], policy: str) -> None:
    said = outcomes[policy].said
    assert [(one["family"], one["dtype"]) for one in said] == [
        (family, dtype) for family in FAMILIES for dtype in ("torch.bfloat16", "torch.float16")
    ]
    assert said == outcomes["off"].said
    assert all(len(one["tokens"]) == 8 for one in said)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_not_on_the_device_crosses_for_every_token(
    outcomes: dict[str, Outcome], policy: str
) -> None:
    outcome = outcomes[policy]
    assert outcome.statistics["h2d"]["bytes"] >= sum(one["crossed"] for one in outcome.said)
    assert outcome.statistics["auth_failures"] == 0


def test_weights_mapped_from_a_checkpoint_are_prefetched(outcomes: dict[str, Outcome]) -> None:
    """They are: `from_pretrained` maps the file, and nobody promised that it stays as it is."""
    prefetching = outcomes["auto"].statistics["prefetching"]
    assert prefetching["hits"] > 0
    assert prefetching["found_bytes"] > prefetching["in_vain_bytes"]
