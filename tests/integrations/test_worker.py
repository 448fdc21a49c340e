"""The worker's half over the real driver: what is loaded is what was stored, wherever it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.systems.conftest import POLICIES, Launcher

# KV caches in host memory, as a CPU build of vLLM has them, and on the device. Two groups of
# layers, one with a padded tensor; two blocks to a chunk, of which a load may leave out one at
# either end.
PROGRAM = """
import random, sys, torch
from vllm.v1.kv_offload.base import (
    CanonicalKVCacheRef, CanonicalKVCaches, CanonicalKVCacheTensor, GPULoadStoreSpec,
)
from pipellm.integrations.vllm.chunks import Chunks
from pipellm.integrations.vllm.worker import ChannelWorker

BLOCKS, CHUNKS, PER_CHUNK = 24, 16, 2
PAGE = int(sys.argv[1])
rng = random.Random(0)

def round_trips(place):
    tensors = [
        torch.zeros(BLOCKS, nbytes, dtype=torch.int8, device=place)
        for nbytes in (PAGE, PAGE, PAGE + 64)
    ]
    caches = CanonicalKVCaches(
        [CanonicalKVCacheTensor(tensor, tensor.shape[1]) for tensor in tensors],
        [
            [CanonicalKVCacheRef(0, PAGE), CanonicalKVCacheRef(2, PAGE)],
            [CanonicalKVCacheRef(1, PAGE)],
        ],
    )
    used = {0: (0, 2), 1: (1,)}  # tensors, by group
    worker = ChannelWorker(caches, CHUNKS, PER_CHUNK, 0)
    stored = {}  # (group, chunk) -> what its blocks held

    def content(group, block):
        return [tensors[i][block, :PAGE].cpu().clone() for i in used[group]]

    def specs(jobs):
        blocks = [b for group in (0, 1) for b in jobs[group][0]]
        chunks = [c for group in (0, 1) for c in jobs[group][1]]
        sizes = [len(jobs[group][0]) for group in (0, 1)]
        return GPULoadStoreSpec(blocks, sizes, [jobs[group][2] for group in (0, 1)]), chunks

    def finish(number):
        if rng.random() < 0.5:
            worker.wait({number})
        results = []
        while not results:
            results = worker.get_finished()
        assert [r.job_id for r in results] == [number] and results[0].success

    for step in range(30):
        for tensor in tensors:
            tensor.random_(-128, 128)
        free = rng.sample(range(CHUNKS), CHUNKS)
        jobs = {}
        for group in (0, 1):
            count = rng.randrange(1, 4)
            blocks = rng.sample(range(BLOCKS), count * PER_CHUNK)
            chunks = [free.pop() for _ in range(count)]
            jobs[group] = blocks, chunks, PER_CHUNK * rng.randrange(3)
            for key in [key for key in stored if key[1] in chunks]:
                del stored[key]
            for i, chunk in enumerate(chunks):
                pair = blocks[i * PER_CHUNK : (i + 1) * PER_CHUNK]
                stored[group, chunk] = [content(group, block) for block in pair]
        device_side, chunks = specs(jobs)
        expected = tuple((chunk,) for _, chunk in sorted(stored))
        assert worker.submit_store(2 * step, device_side, Chunks(chunks, expected))
        finish(2 * step)

        for tensor in tensors:
            tensor.zero_()
        jobs = {}
        for group in (0, 1):
            have = [chunk for of, chunk in stored if of == group]
            chunks = rng.sample(have, min(len(have), rng.randrange(1, 4)))
            skipped, left = rng.randrange(PER_CHUNK), rng.randrange(PER_CHUNK)
            count = len(chunks) * PER_CHUNK - skipped - left
            if count < 1 or -(-(skipped + count) // PER_CHUNK) != len(chunks):
                skipped, count = 0, len(chunks) * PER_CHUNK
            jobs[group] = rng.sample(range(BLOCKS), count), chunks, skipped
        device_side, chunks = specs(jobs)
        assert worker.submit_load(2 * step + 1, Chunks(chunks, (tuple(chunks),)), device_side)
        finish(2 * step + 1)
        for group, (blocks, chunks, skipped) in jobs.items():
            for at, block in enumerate(blocks, skipped):
                then = stored[group, chunks[at // PER_CHUNK]][at % PER_CHUNK]
                assert all(map(torch.equal, content(group, block), then)), (step, group, block)
    worker.shutdown()
    print(place)

for place in ("cpu", "cuda"):
    round_trips(place)
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_loaded_blocks_hold_what_the_stored_ones_held(launch: Launcher, policy: str) -> None:
    page = 40_000 if policy == "auto" else 4_000
    result = launch(PROGRAM, str(page), policy=policy)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "cpu\ncuda\n"
    statistics = launch.statistics
    assert statistics["auth_failures"] == 0
    if policy == "auto":
        assert statistics["prefetching"]["hits"] > 0


CROSSINGS = """
import torch
from pipellm.gpu import emulated
from pipellm.gpu.emulated.device_memory import as_device_memory
host = torch.arange(12, dtype=torch.int32).view(3, 4)
device = as_device_memory(host)
device[1] += 100
picked = device.index_select(0, torch.arange(2, device="cuda"))
assert host[1].tolist() == [104, 105, 106, 107], "one memory"
del host
assert device.sum(dim=1)[2].item() == 38, "which it keeps alive"
assert picked.cpu().tolist() == [[0, 1, 2, 3], [104, 105, 106, 107]]
"""


def test_host_memory_that_plays_device_memory_crosses_only_as_such(launch: Launcher) -> None:
    result = launch(CROSSINGS, policy="serial")
    assert result.returncode == 0, result.stderr
    # What was read back, and nothing else.
    assert launch.statistics["h2d"]["transfers"] == 0
    assert launch.statistics["d2h"]["bytes"] == 8 + 32


WITHOUT = """
import torch
from vllm.v1.kv_offload.base import (
    CanonicalKVCacheRef, CanonicalKVCaches, CanonicalKVCacheTensor,
)
from pipellm.integrations.vllm.pages import Pages
tensor = torch.zeros(2, 8, dtype=torch.int8)
Pages(CanonicalKVCaches([CanonicalKVCacheTensor(tensor, 8)], [[CanonicalKVCacheRef(0, 8)]]), 1, 0)
"""


def test_without_an_emulated_gpu_the_user_is_told_what_to_do() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=300
    )
    assert "start it with `pipellm run`" in result.stderr.strip().splitlines()[-1]
