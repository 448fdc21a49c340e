"""vLLM's server as a user starts it, and clients that ask it for this and that."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.vllm import model
from examples.vllm.model import BLOCK, PERIOD

DEVICE_BLOCKS = 16
"""The KV cache on the device: for a third of what eight clients have under way."""

STARTING = 1200  # seconds, at most, on a machine that does other things too
ANSWERING = 600


@dataclass(frozen=True)
class Question:
    """A request for a completion, and what is known of its answer."""

    prompt: tuple[int, ...]
    length: int  # of the answer, at most
    sampling: dict[str, Any] = field(default_factory=dict)
    beyond_openai: dict[str, Any] = field(default_factory=dict)
    streamed: bool = False

    @property
    def is_greedy(self) -> bool:
        return self.sampling.get("temperature") == 0

    def expected(self, adapted: bool = False) -> tuple[int, ...]:
        """The tokens of a greedy answer."""
        return model.answer(self.prompt, self.length, adapted)


@dataclass(frozen=True)
class Answer:
    tokens: tuple[int, ...]
    texts: tuple[str, ...]  # of each choice
    reasons: tuple[str, ...]  # for which each choice ended


def questions(count: int) -> list[Question]:
    """What OpenAI's and vLLM's sampling parameters can say, in turn; some prompts begin alike."""
    rng = random.Random(0)
    kinds: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        ({"temperature": 0}, {}, False),
        ({}, {}, False),  # temperature 1
        ({"temperature": 0}, {}, True),
        ({"top_p": 0.8, "seed": 1}, {}, False),
        ({"temperature": 0, "logprobs": 3}, {}, False),
        ({"temperature": 0.7, "n": 3}, {}, False),
        ({}, {"top_k": 20, "min_p": 0.05}, True),
        ({"temperature": 1.3, "stop": ["A", "bc"]}, {}, False),
        ({"frequency_penalty": 0.5, "presence_penalty": 0.5}, {"repetition_penalty": 1.1}, False),
        ({"temperature": 0}, {"return_token_ids": True, "prompt_logprobs": 1}, False),
    ]
    beginnings = [_words(rng, 2 * BLOCK) for _ in range(3)]
    return [
        Question(
            beginnings[i % 4] + _words(rng, rng.randrange(16, 100))
            if i % 4 < len(beginnings)
            else _words(rng, rng.randrange(PERIOD, 3 * BLOCK)),
            rng.randrange(PERIOD, 140),
            *kinds[i % len(kinds)],
        )
        for i in range(count)
    ]


def _words(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(4, model.VOCABULARY) for _ in range(count))


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    port: int

    def answers(self, asked: Sequence[Question], name: str, clients: int) -> list[Answer]:
        """Asks by so many clients at once; `name` is that of the model or of an adapter."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda question: self._answer(question, name), asked))

    def _answer(self, question: Question, name: str) -> Answer:
        import openai

        with openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none") as client:
            response: Any = client.completions.create(
                model=name,
                prompt=list(question.prompt),
                max_tokens=question.length,
                stream=question.streamed,
                timeout=ANSWERING,
                extra_body={"return_token_ids": True, **question.beyond_openai},
                **question.sampling,
            )
            parts = list(response) if question.streamed else [response]
        choices = [choice for part in parts for choice in part.choices]
        count = question.sampling.get("n", 1)
        own = [[choice for choice in choices if choice.index == i] for i in range(count)]
        return Answer(
            tuple(token for choice in own[0] for token in choice.token_ids or ()),
            tuple("".join(choice.text for choice in of_one) for of_one in own),
            tuple(of_one[-1].finish_reason for of_one in own),
        )

    def metric(self, name: str) -> float:
        """The sum of a Prometheus metric of vLLM's."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            text = response.read().decode()
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M)
        assert values, name
        return sum(map(float, values))


@contextmanager
def serving(made: Path, policy: str, folder: Path, *options: str) -> Iterator[Server]:
    """The command of docs/vllm.md on a port of its own, and on a device with little memory.

    `folder` gets the statistics (`statistics.json`), and what the server says (`output.txt`).
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "pipellm", "run", "--policy", policy, "--profile", "fast"),
        *("--stats", str(folder / "statistics.json"), "--"),
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(made)),
        *("--port", str(port), "--num-gpu-blocks-override", str(DEVICE_BLOCKS), *options),
    ]
    log = folder / "output.txt"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_until_ready(process, port, log)
            yield Server(port)
        finally:
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])
