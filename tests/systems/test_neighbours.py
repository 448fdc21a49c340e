"""Small writes beside a buffer do not spoil what was sealed of it."""

from __future__ import annotations

from tests.systems.conftest import Launcher

# 36 KiB, as the scales of FlexGen's compressed weights: swaps, but not large ones.
NEIGHBOURS = """
import time, torch
weights, notes = [], []
for i in range(12):
    weights.append(torch.full((9216,), float(i)).pin_memory())
    notes.append(torch.zeros(100).pin_memory())
torch.ones(25_000).pin_memory().cuda()  # 100 kB: what is a swap is told by the sizes seen
for step in range(12):
    for weight, note in zip(weights, notes):
        assert weight.to("cuda", non_blocking=True)[9215].item() == weight[0].item()
        note += 1
    time.sleep(0.01)
"""


def test_pinned_swaps_have_pages_of_their_own(launch: Launcher) -> None:
    result = launch(NEIGHBOURS, policy="pipelined")
    assert result.returncode == 0, result.stderr
    speculation = launch.statistics["speculation"]
    assert speculation["hits"] > 12
    assert speculation["stale"] == 0
