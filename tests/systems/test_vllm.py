"""Unmodified vLLM on the emulated confidential GPU, in a program of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.vllm import model, program
from examples.vllm.model import BLOCK, BLOCK_BYTES
from examples.vllm.program import Run
from tests.systems.conftest import POLICIES, Launcher

pytestmark = pytest.mark.vllm

TURNS = ("--turns", "2")
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""vLLM puts its engine into a process of its own unless it is told not to; a server always does."""


@pytest.fixture(scope="module")
def runs(vllm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        policy: program.run(
            vllm_model,
            policy,
            "fast",
            folder / policy,
            arguments=TURNS,
            environment=ONE_PROCESS,
        )
        for policy in POLICIES
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_the_tokens_are_the_likeliest_although_requests_are_preempted(
    runs: dict[str, Run], policy: str
) -> None:
    run = runs[policy]
    assert len(run.prompts) == 16
    for prompt, tokens in zip(run.prompts, run.tokens, strict=True):
        assert tokens == model.answer(prompt, len(tokens))
    assert run.tokens == runs["off"].tokens
    assert run.preemptions > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_cross_the_link_whole(runs: dict[str, Run], policy: str) -> None:
    crossed = runs[policy].crossings
    assert crossed.h2d_bytes == crossed.h2d_transfers * BLOCK_BYTES, "one copy for all layers"
    assert crossed.d2h_bytes % BLOCK_BYTES == 0
    stored = sum(
        (len(prompt) + len(answer) - 1) // BLOCK
        for prompt, answer in zip(runs[policy].prompts[-8:], runs[policy].tokens[-8:], strict=True)
    )
    assert crossed.d2h_bytes == stored * BLOCK_BYTES, "every full block, once"
    assert crossed.h2d_bytes >= 8 * BLOCK_BYTES
    assert crossed.auth_failures == 0


def test_what_comes_back_is_foreseen(runs: dict[str, Run]) -> None:
    crossed = runs["auto"].crossings
    assert crossed.hits is not None
    assert crossed.misses is not None
    assert crossed.hits > 0


@pytest.mark.parametrize(("policy", "message"), [("serial", "d2h:5"), ("pipelined", "h2d:3")])
def test_a_corrupted_block_ends_the_program_with_the_channels_error(
    launch: Launcher, vllm_model: Path, policy: str, message: str
) -> None:
    direction, _, number = message.partition(":")
    result = launch(
        "import runpy; runpy.run_module('examples.vllm.generate', run_name='__main__')",
        str(vllm_model),
        *TURNS,
        policy=policy,
        options=["--tamper", message],
        environment={**program.ENVIRONMENT, **ONE_PROCESS, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 1
    assert f"authentication failed: {direction.upper()} message {number} " in result.stderr
    assert launch.statistics["auth_failures"] == 1
    assert '"seconds"' not in result.stdout, "it went on"
