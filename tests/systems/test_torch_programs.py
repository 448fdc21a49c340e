"""Unmodified PyTorch programs under every policy: the same results, and real crossings."""

from __future__ import annotations

import re

import pytest

from tests.systems.conftest import POLICIES, Launcher

every_policy = pytest.mark.parametrize("policy", [*POLICIES, "pipelined"])

# Random programs of copies, streams, events, operators and host writes, synchronised as CUDA wants
# it, against the plainest model there is: everything happens at once, in the order of the program.
CUDA_PROGRAMS = """
import sys
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

WORDS = 70_000  # 280 kB: above the threshold of a swap
index = st.integers(0, 2)
operation = st.one_of(
    st.tuples(st.just("to device"), index, index, index, st.booleans(), st.booleans()),
    st.tuples(st.just("to host"), index, index, index, st.booleans(), st.booleans()),
    st.tuples(st.just("add"), index, index),
    st.tuples(st.just("host write"), index, st.booleans(), st.integers(0, WORDS - 1)),
    st.tuples(st.just("sleep"), index),
    st.tuples(st.just("repeat"), st.integers(1, 2)),
    st.tuples(st.just("item"), index, index),
)
streams = [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()]
totals = dict(programs=0)

@settings(max_examples=int(sys.argv[1]), deadline=None, database=None,
          suppress_health_check=list(HealthCheck))
@given(st.lists(operation, max_size=25))
def equal_to_the_model(program):
    totals["programs"] += 1
    host = {(kind, i): torch.full((WORDS,), float(i), pin_memory=kind)
            for kind in (False, True) for i in range(3)}
    device = {i: torch.full((WORDS,), 10.0 + i, device="cuda") for i in range(3)}
    model = {key: tensor.clone() for key, tensor in host.items()}
    model |= {i: tensor.cpu() for i, tensor in device.items()}
    last = {}

    def use(s, *buffers):  # what another stream used last is waited for
        for buffer in buffers:
            if last.get(buffer, s) != s:
                event = torch.cuda.Event()
                event.record(streams[last[buffer]])
                streams[s].wait_event(event)
            last[buffer] = s

    def host_uses(key):
        if key in last:
            streams[last.pop(key)].synchronize()

    def load(h, d, s, pinned, non_blocking):
        use(s, (pinned, h), d)
        with torch.cuda.stream(streams[s]):
            device[d].copy_(host[pinned, h], non_blocking=non_blocking)
        model[d] = model[pinned, h].clone()

    for step in program:
        match step:
            case ("to device", h, d, s, pinned, non_blocking):
                load(h, d, s, pinned, non_blocking)
            case ("to host", h, d, s, pinned, non_blocking):
                use(s, (pinned, h), d)
                with torch.cuda.stream(streams[s]):
                    host[pinned, h].copy_(device[d], non_blocking=non_blocking)
                model[pinned, h] = model[d].clone()
            case ("add", d, s):
                use(s, d)
                with torch.cuda.stream(streams[s]):
                    device[d].add_(1)
                model[d] += 1
            case ("host write", h, pinned, position):
                host_uses((pinned, h))
                host[pinned, h][position] = -5.0
                model[pinned, h][position] = -5.0
            case ("sleep", s):
                with torch.cuda.stream(streams[s]):
                    torch.cuda._sleep(1000)
            case ("repeat", times):
                for _ in range(times):
                    for i in range(3):
                        load(i, i, 0, True, True)
            case ("item", d, s):
                use(s, d)
                with torch.cuda.stream(streams[s]):
                    assert device[d][7].item() == model[d][7].item()
    torch.cuda.synchronize()
    for key, tensor in {**host, **device}.items():
        assert torch.equal(tensor.cpu(), model[key]), key

equal_to_the_model()
print(totals["programs"])
"""


@every_policy
def test_random_programs_do_what_cuda_promises(launch: Launcher, policy: str) -> None:
    result = launch(CUDA_PROGRAMS, "200", policy=policy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout) >= 200
    assert launch.statistics["h2d"]["swaps"] > 100
    assert launch.statistics["d2h"]["swaps"] > 100
    assert launch.statistics["auth_failures"] == 0


CORRUPTED = """
import sys, torch
from pipellm.gpu import emulated
tensor = torch.ones(1 << 20).pin_memory()
device = tensor.cuda()
def spoil(direction, number, message):
    if direction == int(sys.argv[1]):
        message[0] ^= 1
emulated.driver().set_tap(0, spoil)
try:
    if sys.argv[1] == "0":
        device.copy_(tensor, non_blocking=True)
    else:
        tensor.copy_(device, non_blocking=True)
    torch.cuda.synchronize()
except torch.AcceleratorError as error:
    emulated.driver().set_tap(0, None)
    print("caught")
    torch.cuda.synchronize()  # the context stays lost
"""


@pytest.mark.parametrize("policy", ["serial", "pipelined", "prefetch"])
@pytest.mark.parametrize(("direction", "name"), [("0", "H2D"), ("1", "D2H")])
def test_a_corrupted_message_stops_the_program_with_a_clear_error(
    launch: Launcher, policy: str, direction: str, name: str
) -> None:
    result = launch(CORRUPTED, direction, policy=policy)
    assert result.stdout == "caught\n"
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert f"authentication failed: {name} message" in result.stderr, last
    assert "the context is lost" in result.stderr
    assert launch.statistics["auth_failures"] == 1


TRAINING = """
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.ReLU(), torch.nn.Linear(300, 300))
data = [torch.randn(16, 300).pin_memory() for _ in range(4)]
model.cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(5):
    for batch in data:
        x = batch.cuda(non_blocking=True)
        loss = torch.nn.functional.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(loss.item().hex())
"""


def test_losses_are_the_same_to_the_last_bit_under_every_policy(launch: Launcher) -> None:
    outputs = {}
    for policy in (*POLICIES, "pipelined"):
        result = launch(TRAINING, policy=policy)
        assert result.returncode == 0, result.stderr
        outputs[policy] = result.stdout
        assert launch.statistics["h2d"]["bytes"] > 300 * 300 * 4 * 2
    assert len(set(outputs.values())) == 1
    assert len(outputs["off"].splitlines()) == 20


OFFLOADED = """
import torch
weights = [torch.full((200_000,), float(i)).pin_memory() for i in range(5)]
for step in range(10):
    for i, weight in enumerate(weights):
        loaded = weight.to("cuda", non_blocking=True)
        assert loaded.sum().item() == 200_000 * weight[0].item()
    if step == 6:
        weights[2].fill_(7.0)  # while it may lie sealed ahead
"""


def test_offloaded_weights_are_sealed_ahead_and_never_stale(launch: Launcher) -> None:
    result = launch(OFFLOADED, policy="pipelined", profile="h100")
    assert result.returncode == 0, result.stderr
    speculation = launch.statistics["speculation"]
    assert speculation["hits"] >= 30
    assert speculation["by_pattern"]["repetitive"] == speculation["hits"]
    assert speculation["hit_rate"] > 0.5
    assert launch.statistics["engine"] in ("openssl", "ipsec-mb")


def test_offloaded_weights_are_prefetched_and_never_stale(launch: Launcher) -> None:
    result = launch(OFFLOADED, policy="auto", profile="h100")
    assert result.returncode == 0, result.stderr
    statistics = launch.statistics
    assert statistics["chosen"] == "prefetch"
    assert statistics["h2d"]["swaps"] == 50
    assert statistics["prefetching"]["hits"] > 0
    assert statistics["provider"]["bytes"] > 0


MAPPED = """
import pipellm, torch
torch.arange(1_000_000, dtype=torch.float32).numpy().tofile("weights")
weights = torch.from_file("weights", shared=True, size=1_000_000).split(200_000)
if DECLARE:
    pipellm.declare_immutable(*weights)
for step in range(10):
    for i, weight in enumerate(weights):
        assert weight.to("cuda", non_blocking=True)[1].item() == 200_000 * i + 1
"""


@pytest.mark.parametrize("declare", [False, True])
def test_mapped_weights_are_sealed_ahead_only_if_declared_immutable(
    launch: Launcher, declare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(launch.folder)
    result = launch(MAPPED.replace("DECLARE", str(declare)), policy="pipelined")
    assert result.returncode == 0, result.stderr
    assert (launch.statistics["speculation"]["sealed_ahead_bytes"] > 0) == declare


def test_the_log_tells_the_story_of_a_swap(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELLM_LOG", "debug")
    result = launch(OFFLOADED, policy="pipelined")
    assert "sealed now" in result.stderr
    assert "seal ahead: speculation" in result.stderr
    assert "sent from speculation" in result.stderr


def test_the_log_says_what_auto_chose_and_what_was_prefetched(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELLM_LOG", "debug")
    result = launch(OFFLOADED, policy="auto")
    assert "pipellm: auto: prefetch, because there is room for a prefetch buffer" in result.stderr
    assert re.search(r"^pipellm: GPU 0: prefetch \d+ pieces?, [\d,]+ bytes", result.stderr, re.M)


FORKING = """
import os, sys, torch
weights = [torch.full((200_000,), float(i)).pin_memory() for i in range(4)]
def step():
    for i, weight in enumerate(weights):
        assert weight.to("cuda", non_blocking=True)[0].item() == i
for _ in range(6):
    step()
child = os.fork()
if child == 0:
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError as error:
        print("refused" if "fork" in str(error) else error, flush=True)
    sys.exit(0)  # runs the exit handlers that it inherited
assert os.waitpid(child, 0)[1] == 0
step()
print("went on")
"""


@every_policy
def test_a_forked_child_is_told_and_leaves_cleanly(launch: Launcher, policy: str) -> None:
    result = launch(FORKING, policy=policy)
    assert (result.returncode, result.stdout) == (0, "refused\nwent on\n"), result.stderr


EACH_FORKED = """
import os, sys, torch
for words in 1000, 2000, 3000:
    if os.fork() == 0:
        torch.ones(words).cuda()
        sys.exit()
    os.wait()
"""


@every_policy
def test_children_of_a_process_without_a_device_are_counted_each_for_itself(
    launch: Launcher, policy: str
) -> None:
    result = launch(EACH_FORKED, policy=policy)
    assert result.returncode == 0, result.stderr
    crossed = [process["h2d"]["bytes"] for process in launch.statistics["processes"]]
    assert crossed == [0, 4000, 8000, 12000]
