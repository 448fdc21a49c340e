"""Unmodified PEFT, accelerate and DeepSpeed, their weights in host memory, under every policy."""

from __future__ import annotations

import sys

import pytest

from examples import process
from examples.peft import demo, model
from examples.peft.model import Model
from examples.peft.program import (
    ACCELERATE,
    ENVIRONMENT,
    GENERATE,
    PROGRAMS,
    ZERO,
    Program,
    Run,
)
from tests.systems import runs_of_module
from tests.systems.conftest import Launcher

pytestmark = pytest.mark.peft

Runs = dict[Program, dict[str, Run]]

every_program = pytest.mark.parametrize("what", PROGRAMS, ids=lambda what: what.module)
every_policy = pytest.mark.parametrize("policy", demo.POLICIES)


@pytest.fixture(scope="module")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    log = tmp_path_factory.mktemp("model") / "output.txt"
    process.run([sys.executable, "-m", "examples.peft.model", str(demo.FOLDER)], log)
    return model.located(demo.FOLDER)


@pytest.fixture(scope="module")
def runs(made_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Under `pipelined` as a user starts them; under another policy, by one process that has
    imported what they import, which takes a core eight seconds."""
    folder = tmp_path_factory.mktemp("runs")
    found: Runs = {what: {} for what in PROGRAMS}
    for policy in demo.POLICIES:
        own = {what: folder / what.module / policy for what in PROGRAMS}
        if policy == "pipelined":
            for what in PROGRAMS:
                found[what][policy] = what.run(made_model, policy, "fast", own[what])
            continue
        command_lines = [what.command_line(made_model, own[what]) for what in PROGRAMS]
        ended = runs_of_module.run(command_lines, policy, folder / policy, ENVIRONMENT)
        for what, run in zip(PROGRAMS, ended, strict=True):
            found[what][policy] = what.read(*run)
    return found


def layer_bytes() -> int:
    """What of the base model lies in host memory: its layers' matrices, in bfloat16."""
    return model.LAYERS * 12 * model.WIDTH**2 * 2


@pytest.mark.parametrize("what", [ACCELERATE, ZERO], ids=lambda what: what.module)
def test_losses_fall_and_are_the_same_to_the_last_bit(runs: Runs, what: Program) -> None:
    losses = {run.losses for run in runs[what].values()}
    assert len(losses) == 1
    (only,) = losses
    assert only[-1] < only[0]


def test_tokens_are_the_same_wherever_the_weights_wait(runs: Runs) -> None:
    assert demo.same_results(runs[GENERATE])
    said = runs[GENERATE]["off"].tokens
    assert said["cpu_offload"] == said["dispatch_model"]
    assert said["first"] != said["second"] != said["dispatch_model"] != said["first"]


@every_program
@every_policy
def test_the_layers_cross_the_link_for_every_step(runs: Runs, what: Program, policy: str) -> None:
    run = runs[what][policy]
    # Forward, and with gradient checkpointing once more for backward; or once for every token.
    passes = 2 * len(run.losses) + sum(len(t) for said in run.tokens.values() for t in said)
    assert run.h2d_bytes >= passes * layer_bytes()
    assert run.d2h_bytes > 0


@every_program
def test_the_policies_move_the_same_bytes(runs: Runs, what: Program) -> None:
    moved = {(run.h2d_bytes, run.h2d_transfers, run.d2h_bytes) for run in runs[what].values()}
    assert len(moved) == 1


@every_program
def test_weights_are_sealed_ahead_once_their_order_is_known(runs: Runs, what: Program) -> None:
    run = runs[what]["pipelined"]
    assert run.hits is not None
    assert run.misses is not None
    assert run.hits > run.misses  # three steps or so are needed to learn it
    assert runs[what]["off"].hits is runs[what]["serial"].hits is None


@every_program
@every_policy
def test_every_message_authenticates(runs: Runs, what: Program, policy: str) -> None:
    assert runs[what][policy].auth_failures == 0


TRAINING = """
import runpy, sys
sys.argv[0] = "finetune"
runpy.run_module("examples.peft.finetune", run_name="__main__")
"""


@pytest.mark.parametrize("policy", ["serial", "auto"])
def test_a_changed_message_stops_the_training(
    launch: Launcher, made_model: Model, policy: str
) -> None:
    adapter = launch.folder / "adapter"
    result = launch(
        TRAINING,
        *(str(made_model.checkpoint), str(made_model.text), str(adapter)),
        policy=policy,
        options=["--tamper", "h2d:700"],
    )
    assert result.returncode == 1
    assert "step 1: loss" in result.stdout
    assert "step 8: loss" not in result.stdout
    assert "authentication failed: H2D message 700 " in result.stderr
    assert launch.statistics["auth_failures"] == 1
    if policy == "auto":
        assert launch.statistics["prefetching"]["hits"] > 0
    assert not adapter.exists()
