"""`pipellm run` ends with one line that says what was copied, unless it is told to be quiet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipellm.attach.summary import size, summary
from pipellm.runtime.report import Process, merge
from pipellm.runtime.served import Served
from pipellm.settings import Settings
from tests.attach.conftest import World


def run(world: World, *options: str, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    program = "import torch; torch.copy(2_000_000); print('done')"
    command = [sys.executable, "-m", "pipellm", "run", *options, "--", sys.executable, "-c"]
    result = subprocess.run(
        [*command, program],
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
    )
    assert result.stdout == "done\n"
    return result.returncode, result.stderr


def test_the_line_comes_on_standard_error(world: World) -> None:
    status, said = run(world, "--policy", "serial")
    assert status == 0
    (line,) = said.splitlines()
    assert line.startswith("pipellm: serial: 2 MB to the device and 0 B from it in ")
    assert "all sealed when asked for" in line


def test_quiet_leaves_it_out(world: World) -> None:
    assert run(world, "--quiet") == (0, "")


def test_a_full_standard_error_does_not_change_how_the_run_ends(world: World) -> None:
    with open("/dev/full", "w") as full:
        assert run(world, stderr=full.fileno())[0] == 0


def said_of(settings: Settings, **counts: int) -> str | None:
    identity = {"pid": 1, "argv": [], "started": 0, "forked": False}
    return summary(merge(settings, [Process(identity, counts)], elapsed_s=2.5))


def test_a_policy_that_seals_ahead_says_how_often_and_how_much() -> None:
    counts = {
        "h2d_bytes": 3 * 10**9,
        "d2h_bytes": 1500,
        "hits": 97,
        "misses": 3,
        "hidden_ns": 1_250_000_000,
        "waited_ns": 500_000_000,
    }
    assert said_of(Settings(policy="pipelined"), **counts) == (
        "pipelined: 3 GB to the device and 1.5 kB from it in 2.5 s; "
        "97% of 100 swap-ins sealed ahead; 1.25 s of sealing hidden; 0.50 s spent in swaps"
    )


def test_a_policy_in_the_clear_says_so() -> None:
    line = said_of(Settings(policy="off"), h2d_bytes=1000)
    assert line is not None
    assert "nothing sealed" in line


def test_a_gpu_of_ones_own_says_what_the_provider_served() -> None:
    settings = Settings(gpu="own", attach="libcrypto")
    served = [Served(1, 3, 4_000_000), Served(2, 0, 0)]
    assert summary(merge(settings, [], served, elapsed_s=2.0)) == (
        "own GPU: the provider sealed or opened 4 MB for 2 process(es) in 2.0 s"
    )


def test_nothing_is_summed_up_where_pipellm_had_no_part() -> None:
    assert summary(merge(Settings(), [], elapsed_s=2.0)) is None
    assert summary(merge(Settings(gpu="own", attach="libcrypto"), [], elapsed_s=2.0)) is None


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_900, "1 MB"), (12 * 10**12, "12 TB")],
)
def test_sizes_are_short(nbytes: int, shown: str) -> None:
    assert size(nbytes) == shown
