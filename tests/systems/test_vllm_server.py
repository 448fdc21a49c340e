"""Unmodified vLLM on the emulated confidential GPU: its server, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.vllm import model
from tests.systems.conftest import POLICIES, REPOSITORY
from tests.systems.vllm_server import questions, serving

pytestmark = pytest.mark.vllm

CLIENTS = 8
QUESTIONS = questions(50)


@pytest.fixture(scope="module")
def made_model() -> Path:
    return model.made(REPOSITORY / "build" / "vllm")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_server_as_documented_answers_eight_clients_and_preempts(
    made_model: Path, tmp_path: Path, policy: str
) -> None:
    with serving(made_model, policy, tmp_path) as server:
        answers = server.answers(QUESTIONS, str(made_model), CLIENTS)
        preempted = server.metric("vllm:num_preemptions_total")
        known = server.metric("vllm:prefix_cache_hits_total")
        loaded = server.metric("vllm:kv_offload_load_bytes_total")
        stored = server.metric("vllm:kv_offload_store_bytes_total")
    for question, answer in zip(QUESTIONS, answers, strict=True):
        if question.is_greedy:
            assert answer.tokens == question.expected()
        assert set(answer.reasons) <= {"length", "stop"}
        for stop in question.sampling.get("stop", ()):
            assert stop not in answer.texts[0]
    assert preempted > 0
    assert known > 0
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["h2d"]["bytes"] >= loaded > 0
    assert statistics["d2h"]["bytes"] >= stored > 0
    assert statistics["auth_failures"] == 0
    if policy == "paper":
        assert statistics["speculation"]["hits"] > 0


def test_an_adapter_is_served_and_its_blocks_swapped(made_model: Path, tmp_path: Path) -> None:
    model.adapter(made_model, tmp_path / "adapter")
    options = ["--enable-lora", "--lora-modules", f"partners={tmp_path / 'adapter'}"]
    greedy = [question for question in QUESTIONS if question.is_greedy][:CLIENTS]
    with serving(made_model, "paper", tmp_path, *options) as server:
        for question, answer in zip(
            greedy, server.answers(greedy, "partners", CLIENTS), strict=True
        ):
            assert answer.tokens == question.expected(adapted=True)
        assert server.metric("vllm:kv_offload_store_bytes_total") > 0
