"""Training in two processes, each on an emulated GPU of its own, as torchrun starts them."""

from __future__ import annotations

import sys

import pytest

from tests.systems.conftest import POLICIES, Launcher

TRAINING = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.cuda.set_device(rank)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.ReLU(), torch.nn.Linear(300, 300))
model = torch.nn.parallel.DistributedDataParallel(model.cuda(), device_ids=[rank])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = torch.randn(6, 2, 8, 300)[:, rank].pin_memory()
for batch in data:
    x = batch.cuda(non_blocking=True)
    loss = torch.nn.functional.mse_loss(model(x), x)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    if rank == 0:
        print(mean.item().hex(), flush=True)
dist.destroy_process_group()
"""

TORCHRUN = (*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),)


@pytest.mark.long
def test_two_processes_train_the_same_under_every_policy(launch: Launcher) -> None:
    losses = {}
    for policy in POLICIES:
        result = launch(TRAINING, policy=policy, gpu="emulated:2", python=TORCHRUN)
        assert result.returncode == 0, result.stderr
        losses[policy] = result.stdout
        copying = [part for part in launch.statistics["processes"] if part["h2d"]["bytes"]]
        assert len(copying) == 2  # and torchrun itself leaves the device alone
        weights = 2 * 300 * 300 * 4
        assert all(part["d2h"]["bytes"] > 6 * weights for part in copying)  # the gradients
        assert launch.statistics["auth_failures"] == 0
    assert len(set(losses.values())) == 1
    assert len(losses["off"].splitlines()) == 6
