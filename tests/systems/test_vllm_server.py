"""Unmodified vLLM on the emulated confidential GPU: its server, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.vllm import model
from tests.systems.vllm_server import Question, Server, questions, serving

pytestmark = pytest.mark.vllm

CLIENTS = 8
QUESTIONS = questions(50)
FEWER = QUESTIONS[:20]  # two of each kind
ADAPTER = "partners"

LOADED = "vllm:kv_offload_load_bytes_total"
STORED = "vllm:kv_offload_store_bytes_total"


@pytest.fixture
def adapter(vllm_model: Path, tmp_path: Path) -> list[str]:
    """The options that serve it."""
    model.adapter(vllm_model, tmp_path / "adapter")
    return ["--enable-lora", "--lora-modules", f"{ADAPTER}={tmp_path / 'adapter'}"]


@pytest.mark.parametrize(
    ("policy", "asked"), [("off", FEWER), ("pipelined", QUESTIONS)], ids=["off", "pipelined"]
)
def test_the_server_as_documented_answers_eight_clients_and_preempts(
    vllm_model: Path, tmp_path: Path, policy: str, asked: list[Question]
) -> None:
    with serving(vllm_model, policy, tmp_path) as server:
        loaded, stored = answer_and_swap(server, vllm_model, asked)
    statistics = crossed(tmp_path, loaded, stored)
    if policy == "pipelined":
        assert statistics["speculation"]["hits"] > 0


def test_an_adapter_is_served_beside_its_model(
    vllm_model: Path, adapter: list[str], tmp_path: Path
) -> None:
    greedy = [question for question in QUESTIONS if question.is_greedy][:CLIENTS]
    with serving(vllm_model, "serial", tmp_path, *adapter) as server:
        answers = server.answers(greedy, ADAPTER, CLIENTS)
        for question, answer in zip(greedy, answers, strict=True):
            assert answer.tokens == question.expected(adapted=True)
        assert server.metric(STORED) > 0
        loaded, stored = answer_and_swap(server, vllm_model, FEWER)
    crossed(tmp_path, loaded, stored)


def answer_and_swap(server: Server, vllm_model: Path, asked: list[Question]) -> tuple[float, float]:
    """Has the questions answered; returns the bytes that vLLM says it has loaded and stored."""
    answers = server.answers(asked, str(vllm_model), CLIENTS)
    for question, answer in zip(asked, answers, strict=True):
        if question.is_greedy:
            assert answer.tokens == question.expected()
        assert set(answer.reasons) <= {"length", "stop"}
        for stop in question.sampling.get("stop", ()):
            assert stop not in answer.texts[0]
    assert server.metric("vllm:num_preemptions_total") > 0
    assert server.metric("vllm:prefix_cache_hits_total") > 0
    return server.metric(LOADED), server.metric(STORED)


def crossed(folder: Path, loaded: float, stored: float) -> dict[str, Any]:
    """The statistics of a run in which so many bytes were loaded and stored."""
    statistics: dict[str, Any] = json.loads((folder / "statistics.json").read_text())
    assert statistics["h2d"]["bytes"] >= loaded > 0
    assert statistics["d2h"]["bytes"] >= stored > 0
    assert statistics["auth_failures"] == 0
    return statistics
