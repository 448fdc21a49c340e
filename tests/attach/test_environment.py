"""What stands in the environment stands for the options that were not given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.attach.conftest import World

COPY = "import torch; torch.copy(1000)"


def run(
    world: World, environment: Mapping[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return world.run(sys.executable, "-c", COPY, options=options, environment=environment)


def test_variables_are_defaults_of_the_options(world: World) -> None:
    environment = {
        "PIPELLM_GPU": "emulated:2",
        "PIPELLM_POLICY": "serial",
        "PIPELLM_PROFILE": "fast",
        "PIPELLM_STATS": str(world.stats),
    }
    assert run(world, environment).returncode == 0
    (installed,) = world.installed()
    assert (installed["gpus"], installed["policy"]) == (2, "serial")
    assert installed["profile"] == "fast"
    assert world.report()["h2d"]["bytes"] == 1000


def test_an_option_wins(world: World) -> None:
    assert run(world, {"PIPELLM_POLICY": "serial"}, "--policy", "off").returncode == 0
    assert world.installed()[0]["policy"] == "off"


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PIPELLM_POLICY", "pipelind", "unknown policy 'pipelind'"),
        ("PIPELLM_GPU", "emulatd", "unknown gpu 'emulatd'"),
        ("PIPELLM_PROFILE", "h1000", "unknown profile 'h1000'"),
        ("PIPELLM_ATTACH", "libcripto", "unknown attachment 'libcripto'"),
        ("PIPELLM_TAMPER", "h2d", "tamper 'h2d'"),
        ("PIPELLM_STATS", "/dev/null", "cannot write statistics to /dev/null"),
        ("PIPELLM_LOG", "nonsense", "unknown PIPELLM_LOG 'nonsense' (choose from debug)"),
    ],
)
def test_a_value_that_is_none_is_told_of_in_one_line(
    world: World, variable: str, value: str, complaint: str
) -> None:
    result = run(world, {variable: value})
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line
    assert variable in line or value in line
    assert world.installed() == []


def test_an_empty_variable_is_none(world: World) -> None:
    assert run(world, {"PIPELLM_POLICY": "", "PIPELLM_LOG": ""}).returncode == 0
    assert world.installed()[0]["policy"] == "auto"


def test_a_run_below_another_keeps_its_policy_and_leaves_its_statistics_alone(
    world: World,
) -> None:
    inner = " ".join(world.pipellm_run([sys.executable, "-c", f"'{COPY}'"]))
    options = ["--policy", "off", "--stats", str(world.stats)]
    assert world.run("sh", "-c", inner, options=options).returncode == 0
    assert world.installed()[0]["policy"] == "off"
    assert world.report()["processes"] == []


def test_the_help_names_the_variables(world: World) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipellm", "run", "--help"],
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for name in ("GPU", "PROFILE", "POLICY", "ATTACH", "STATS", "TAMPER", "LOG", "CACHE"):
        assert f"PIPELLM_{name}" in result.stdout
