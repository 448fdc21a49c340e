"""The ways in which programs get weights and data onto the device, all of them exact."""

from __future__ import annotations

import pytest

from tests.systems.conftest import POLICIES, Launcher

every_policy = pytest.mark.parametrize("policy", POLICIES)

WEIGHTS = """
import sys, torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

torch.manual_seed(0)
weights = {f"w{i}": torch.randn(300, 200 + i) for i in range(4)}
weights |= {"steps": torch.arange(5), "half": torch.randn(1000, 300).half()}
pickled, tensors = sys.argv[1] + "/weights.pt", sys.argv[1] + "/weights.safetensors"
torch.save(weights, pickled)
save_file(weights, tensors)

def equal(loaded):
    assert loaded.keys() == weights.keys()
    for name, tensor in loaded.items():
        assert tensor.device == torch.device("cuda:0") and tensor.dtype == weights[name].dtype
        assert torch.equal(tensor.cpu(), weights[name]), name

equal(torch.load(pickled, map_location="cuda"))
equal(torch.load(pickled, map_location="cuda:0", mmap=True))
for device in "cuda", "cuda:0", 0:
    equal(load_file(tensors, device=device))
with safe_open(tensors, "pt", device="cuda") as file:
    equal({name: file.get_tensor(name) for name in file.keys()})
    assert torch.equal(file.get_slice("half")[10:20].cpu(), weights["half"][10:20])

torch.save({name: tensor.cuda() for name, tensor in weights.items()}, pickled)
equal(torch.load(pickled))
back = torch.load(pickled, map_location="cpu")
assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
print("exact")
"""


@every_policy
def test_weights_are_loaded_straight_to_the_device(launch: Launcher, policy: str) -> None:
    result = launch(WEIGHTS, str(launch.folder), policy=policy)
    assert (result.returncode, result.stdout) == (0, "exact\n"), result.stderr
    assert launch.statistics["h2d"]["bytes"] > 8 * 4 * 4 * 300 * 200  # loaded eight times over
    assert launch.statistics["auth_failures"] == 0


BATCHES = """
import sys, torch
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 24
    def __getitem__(self, i):
        return torch.full((50_000,), float(i)), i

for workers in 0, 2:
    loader = DataLoader(Numbers(), batch_size=4, pin_memory=True, num_workers=workers)
    for epoch in range(2):
        seen = []
        for rows, numbers in loader:
            sums = rows.to("cuda", non_blocking=True).sum(1).cpu()
            assert torch.equal(sums, numbers * 50_000.0), (sums, numbers)
            seen += numbers.tolist()
        assert seen == list(range(24))
print("pinned" if rows.is_pinned() else "not pinned")
"""


@every_policy
def test_batches_arrive_whole_from_a_loader_that_pins_them(launch: Launcher, policy: str) -> None:
    result = launch(BATCHES, policy=policy)
    # As shipped, confidential computing takes pinned memory away; the batches come all the same.
    pinned = "not pinned\n" if policy == "serial" else "pinned\n"
    assert (result.returncode, result.stdout) == (0, pinned), result.stderr
    assert launch.statistics["h2d"]["bytes"] >= 2 * 2 * 24 * 50_000 * 4
    assert launch.statistics["auth_failures"] == 0
