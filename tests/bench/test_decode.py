"""The decode loop: what comes back is checked, whoever asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipellm.bench.decode import LOOPS, Engine, measure
from pipellm.bench.drivers import shipped_driver
from pipellm.bench.stage import WrongBytesError


@pytest.mark.parametrize("confidential", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_every_step_gets_its_own_result(loop: str, confidential: bool) -> None:
    driver = shipped_driver("fast", confidential=confidential)
    seen = measure(driver, LOOPS[loop], 0.1, 30)
    assert 0 < seen.busy <= 1
    assert seen.step_ms > 1  # the Python of a step
    for middle, most in (seen.in_us, seen.out_us):
        assert 0 < middle <= most


class Late(Engine):
    """Sends the input before it is there, once."""

    def think(self, step: int) -> None:
        if step != 9:
            super().think(step)


@pytest.mark.parametrize("loop", LOOPS)
def test_another_steps_result_ends_the_measurement(loop: str) -> None:
    engine = Late(shipped_driver("fast", confidential=True), 0.1)
    with pytest.raises(WrongBytesError, match="step 9"):
        LOOPS[loop](engine, range(1, 20))


def test_the_command_tells_each_policys_share_of_off() -> None:
    command = [sys.executable, "-m", "pipellm.bench.decode", "--policy", "serial"]
    command += ["--profile", "fast", "--forward-ms", "1", "--seconds", "0.02", "--repeats", "1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [line.split("│") for line in run.stdout.splitlines() if "1 ms" in line]
    told = [(row[1].strip(), row[3].strip()) for row in rows]
    assert told == [(loop, policy) for loop in LOOPS for policy in ("off", "serial")]
