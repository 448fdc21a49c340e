"""Unmodified FlexGen on the emulated confidential GPU, as a user starts it: the demo, shortened."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from examples import process
from examples.flexgen import demo, model, program, recital
from examples.flexgen.mode import MODES, POLICIES, WEIGHTS, Mode
from examples.flexgen.model import Model
from examples.flexgen.program import Run
from tests.systems import runs_of_module

pytestmark = pytest.mark.flexgen

WORDS = 4
PASSES = WORDS + 1  # over the weights: FlexGen's warm-up generates one token

RunOf = Callable[[Mode, str], Run]

every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
every_run = pytest.mark.parametrize(
    ("mode", "policy"),
    [
        pytest.param(mode, policy, id=f"{mode.name}-{policy}")
        for mode in MODES.values()
        for policy in mode.policies
    ],
)


@pytest.fixture(scope="module")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The demo's own model: making it once for both saves seconds and half a gigabyte."""
    log = tmp_path_factory.mktemp("model") / "output.txt"
    process.run([sys.executable, "-m", "examples.flexgen.model", str(demo.FOLDER)], log)
    return model.located(demo.FOLDER)


@pytest.fixture(scope="module")
def run_of(made_model: Model, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """One run of each mode and policy that is asked for, whoever asks.

    The mode of the demo is run as a user starts it under `pipelined`; all others of a policy, by
    one process that has imported FlexGen and all that it imports, which takes a core eight seconds.
    """
    folder = tmp_path_factory.mktemp("runs")

    def is_alone(mode: Mode, policy: str) -> bool:
        return mode == WEIGHTS and policy == "pipelined"

    @cache
    def run(policy: str) -> Run:
        return program.run(made_model, policy, "fast", WORDS, folder / f"weights-{policy}")

    @cache
    def run_others(policy: str) -> dict[Mode, Run]:
        modes = [
            mode
            for mode in MODES.values()
            if policy in mode.policies and not is_alone(mode, policy)
        ]
        command_lines = []
        for mode in modes:
            there = folder / f"{mode.name}-{policy}"
            there.mkdir()
            command_lines.append(
                [program.MODULE, *program.arguments(made_model, WORDS, there, mode)]
            )
        ended = runs_of_module.run(
            command_lines, policy, folder / f"others-{policy}", program.environment(made_model)
        )
        return {mode: program.read(*run) for mode, run in zip(modes, ended, strict=True)}

    return lambda mode, policy: run(policy) if is_alone(mode, policy) else run_others(policy)[mode]


def test_transformers_recites_the_planted_text_on_the_cpu(
    made_model: Model, tmp_path: Path
) -> None:
    output = process.run(
        [
            sys.executable,
            "-m",
            "examples.flexgen.reference",
            str(made_model.checkpoint),
            str(WORDS),
        ],
        tmp_path / "output.txt",
    )
    assert output.split()[-WORDS:] == recital.CONTINUATION.split()[:WORDS]


@every_run
def test_flexgen_generates_the_tokens_of_the_cpu_reference(
    run_of: RunOf, mode: Mode, policy: str
) -> None:
    first, last = run_of(mode, policy).tokens  # the rows of the batch that FlexGen prints
    if mode.exact:
        assert list(first) == recital.recited_tokens(WORDS)
    else:  # weights in 4 bits say something else, but always the same
        assert first == run_of(mode, POLICIES[0]).tokens[0]
    assert last == first


@every_run
def test_all_weights_cross_the_link_for_every_token(
    run_of: RunOf, made_model: Model, mode: Mode, policy: str
) -> None:
    tensors = {
        file.name: np.load(file, mmap_mode="r").nbytes for file in made_model.weights.glob("*-np/*")
    }
    # The embedding table crosses twice: for the first layer, and as the last.
    weights = sum(tensors.values()) + tensors["decoder.embed_tokens.weight"]
    crossed = run_of(mode, policy).h2d_bytes / PASSES
    if mode.exact:
        # Also token ids and attention masks; or a few megabytes of cache and activations.
        others = 64 * 1024 if mode.percent[2:] == WEIGHTS.percent[2:] else weights / 100
        assert weights <= crossed <= weights + others
    else:  # 4 of 16 bits, and the scales of 64 weights each
        assert 0.25 * weights < crossed < 0.3 * weights


@every_mode
def test_the_policies_move_the_same_bytes(run_of: RunOf, mode: Mode) -> None:
    runs = [run_of(mode, policy) for policy in mode.policies]
    assert len({(run.h2d_bytes, run.h2d_transfers, run.d2h_bytes) for run in runs}) == 1


@pytest.mark.parametrize("name", ["weights", "compressed", "cache", "everything"])
def test_weights_are_sealed_ahead_from_the_third_token_on(run_of: RunOf, name: str) -> None:
    run = run_of(MODES[name], "pipelined")
    assert run.hits is not None
    assert run.misses is not None
    assert run.hits >= (run.hits + run.misses) // PASSES  # at least one whole pass over the weights


def test_nothing_is_sealed_ahead_unless_the_policy_plans(run_of: RunOf) -> None:
    assert run_of(WEIGHTS, "off").hits is run_of(WEIGHTS, "serial").hits is None


@every_run
def test_every_message_authenticates(run_of: RunOf, mode: Mode, policy: str) -> None:
    assert run_of(mode, policy).auth_failures == 0


# The first pass over the weights takes some 600 messages.
@pytest.mark.parametrize(("policy", "number"), [("serial", 700), ("pipelined", 900)])
def test_one_corrupted_message_stops_flexgen_with_a_clear_error(
    made_model: Model, tmp_path: Path, policy: str, number: int
) -> None:
    with pytest.raises(
        process.PieceError, match=f"authentication failed: H2D message {number} is not what its"
    ):
        program.run(
            made_model, policy, "fast", WORDS, tmp_path, options=["--tamper", f"h2d:{number}"]
        )
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["auth_failures"] == 1
    assert statistics["exit_status"] == 1
