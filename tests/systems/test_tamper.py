"""`pipellm run --tamper` changes one message on its way, and the program is told which."""

from __future__ import annotations

import pytest

from tests.systems.conftest import Launcher

# Three messages a copy, and enough copies for `pipelined` to seal ahead.
SWAPPING = """
import time, torch
weights = torch.ones(3 << 20, dtype=torch.uint8).pin_memory()
for step in range(40):
    time.sleep(0.005)
    returned = weights.to("cuda", non_blocking=True).cpu()
    assert torch.equal(returned, weights)
    print(step, flush=True)
"""


@pytest.mark.parametrize("policy", ["serial", "pipelined", "auto"])
@pytest.mark.parametrize(("direction", "number", "step"), [("h2d", 1, 0), ("d2h", 17, 5)])
def test_the_program_stops_at_the_message_and_names_it(
    launch: Launcher, policy: str, direction: str, number: int, step: int
) -> None:
    result = launch(SWAPPING, policy=policy, options=["--tamper", f"{direction}:{number}"])
    assert result.stdout.split() == [str(done) for done in range(step)]
    assert f"authentication failed: {direction.upper()} message {number} " in result.stderr
    assert result.returncode == 1
    assert launch.statistics["auth_failures"] == 1
    assert launch.statistics["exit_status"] == 1


# Large enough for the pool to help with each copy, and nothing to wait for but the copy itself.
LARGE = """
import torch
weights = torch.ones(16 << 20, dtype=torch.uint8)
for _ in range(50):
    weights.to("cuda")
"""


def test_a_large_copy_that_is_cut_short_ends_in_the_error_and_in_nothing_worse(
    launch: Launcher,
) -> None:
    for _ in range(4):
        result = launch(LARGE, policy="pipelined", options=["--tamper", "h2d:2"])
        assert "authentication failed: H2D message 2 " in result.stderr
        assert result.returncode == 1


def test_what_was_sealed_ahead_is_no_less_protected(launch: Launcher) -> None:
    result = launch(SWAPPING, policy="pipelined", options=["--tamper", "h2d:100"])
    assert launch.statistics["speculation"]["hits"] > 0
    assert "authentication failed: H2D message 100 " in result.stderr
    assert result.returncode == 1


def test_a_message_that_never_came_is_told_of(launch: Launcher) -> None:
    result = launch(SWAPPING, policy="serial", options=["--tamper", "h2d:1000"])
    assert result.returncode == 0
    assert result.stderr == (
        "pipellm: warning: nothing was tampered with: the program ended before h2d:1000\n"
    )


EACH_ITS_OWN = """
import multiprocessing, torch

def copy():
    try:
        torch.ones(4).cuda()
    except torch.AcceleratorError as error:
        print("message 1 " in str(error), flush=True)

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=copy)
    child.start()
    child.join()
    copy()
"""


def test_every_process_of_the_program_is_attacked(launch: Launcher) -> None:
    result = launch(EACH_ITS_OWN, policy="serial", options=["--tamper", "h2d:1"])
    assert (result.returncode, result.stdout) == (0, "True\nTrue\n"), result.stderr
    assert launch.statistics["auth_failures"] == 2
