"""Ray's workers, which its own daemon starts: each has the device, and the GPU that Ray gave it."""

from __future__ import annotations

import json

import pytest

from tests.systems.conftest import Launcher

CLUSTER = """
import json, os, ray

@ray.remote(num_cpus=1)
def without():
    import torch
    return torch.cuda.device_count(), os.environ["PIPELLM_POLICY"]

@ray.remote(num_cpus=1, num_gpus=1)
def task():
    import torch
    weights = torch.arange(200_000.0).pin_memory()
    total = sum(weights.to("cuda", non_blocking=True)[-1].item() for _ in range(8))
    return torch.cuda.device_count(), total

@ray.remote(num_cpus=1, num_gpus=1)
class Actor:
    def __init__(self):
        import torch
        self.torch, self.held = torch, torch.ones(200_000).cuda()
    def add(self, number):
        self.held += self.torch.full((200_000,), number).cuda()
        total = self.held.sum(dtype=self.torch.float64).item()
        return os.environ["CUDA_VISIBLE_DEVICES"], self.torch.cuda.device_count(), total

ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
results = dict(without=ray.get(without.remote()), task=ray.get(task.remote()))
actors = [Actor.remote() for _ in range(2)]
for number in 1.0, 2.0:
    results["actors"] = sorted(ray.get([actor.add.remote(number) for actor in actors]))
ray.shutdown()
print(json.dumps(results))
"""


@pytest.mark.parametrize("policy", ["serial", "pipelined"])
def test_tasks_and_actors_use_the_gpu_that_ray_gave_them(launch: Launcher, policy: str) -> None:
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    result = launch(CLUSTER, policy=policy, gpu="emulated:2", environment=quiet)
    assert result.returncode == 0, result.stderr
    results = json.loads(result.stdout.splitlines()[-1])
    assert results["without"] == [2, policy]  # Ray hides nothing from a task that asks for none
    assert results["task"] == [1, 8 * 199_999.0]
    assert results["actors"] == [["0", 1, 800_000.0], ["1", 1, 800_000.0]]
    copied = [part["h2d"]["bytes"] for part in launch.statistics["processes"]]
    buffer = 200_000 * 4
    assert sorted(bytes for bytes in copied if bytes) == [3 * buffer, 3 * buffer, 8 * buffer]
    assert launch.statistics["auth_failures"] == 0
