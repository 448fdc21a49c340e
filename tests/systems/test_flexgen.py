"""Unmodified FlexGen on the emulated confidential GPU, as a user starts it: the demo, shortened."""

import sys
from pathlib import Path

import numpy as np
import pytest

from examples.flexgen import demo, model, process, program, recital
from examples.flexgen.model import Model
from examples.flexgen.program import Run

pytestmark = pytest.mark.flexgen

WORDS = 4


@pytest.fixture(scope="module")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The demo's own model: making it once for both saves seconds and half a gigabyte."""
    log = tmp_path_factory.mktemp("model") / "output.txt"
    process.run([sys.executable, "-m", "examples.flexgen.model", str(demo.FOLDER)], log)
    return model.located(demo.FOLDER)


@pytest.fixture(scope="module")
def runs(made_model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        policy: program.run(made_model, policy, "fast", WORDS, folder / policy)
        for policy in demo.POLICIES
    }


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


@pytest.mark.parametrize("policy", demo.POLICIES)
def test_flexgen_generates_the_tokens_of_the_cpu_reference(
    runs: dict[str, Run], policy: str
) -> None:
    first, last = runs[policy].tokens  # the rows of the batch that FlexGen prints
    assert list(first) == recital.recited_tokens(WORDS)
    assert last == first


@pytest.mark.parametrize("policy", demo.POLICIES)
def test_all_weights_cross_the_link_for_every_token(
    runs: dict[str, Run], made_model: Model, policy: str
) -> None:
    tensors = {
        file.name: np.load(file, mmap_mode="r").nbytes for file in made_model.weights.glob("*-np/*")
    }
    # The embedding table crosses twice: for the first layer, and as the last.
    weights = sum(tensors.values()) + tensors["decoder.embed_tokens.weight"]
    passes = WORDS + 1  # FlexGen's warm-up generates one token
    crossed = runs[policy].h2d_bytes
    # What else crosses is small: token ids and attention masks.
    assert passes * weights <= crossed <= passes * weights + 64 * 1024


def test_the_policies_move_the_same_bytes(runs: dict[str, Run]) -> None:
    moved = {(run.h2d_bytes, run.h2d_transfers, run.d2h_bytes) for run in runs.values()}
    assert len(moved) == 1


def test_weights_are_sealed_ahead_from_the_third_token_on(runs: dict[str, Run]) -> None:
    hits, misses = runs["paper"].hits, runs["paper"].misses
    assert hits is not None
    assert misses is not None
    passes = WORDS + 1
    assert hits >= (hits + misses) // passes  # at least one whole pass over the weights
    assert runs["off"].hits is runs["serial"].hits is None


def test_every_message_authenticates(runs: dict[str, Run]) -> None:
    assert {policy: run.auth_failures for policy, run in runs.items()} == dict.fromkeys(runs, 0)
