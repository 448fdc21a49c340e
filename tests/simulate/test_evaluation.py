"""The evaluation: the paper's figures, one calibration, and how it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipellm.errors import UserError
from pipellm.runtime.policy import POLICIES
from pipellm.simulate.evaluation import evaluate, points
from pipellm.simulate.host import HOSTS
from pipellm.simulate.paper import PUBLISHED_DROPS, Experiment, experiments
from pipellm.simulate.point import Point, Row
from pipellm.simulate.sweep import Sweep, locally
from pipellm.simulate.table import findings, markdown, tables

SERVER = HOSTS["server"]


def one_by_one(points: Sequence[Point]) -> Generator[Row]:
    yield from map(Point.simulate, points)


def some(system: str, model: str, units: int) -> Experiment:
    return replace(next(experiments((system,), (model,))), units=units)


def rows_of(experiment: Experiment) -> dict[str, Row]:
    todo = points([experiment], ["h100"], [("", SERVER)])
    return {row.case: row for rows in evaluate(todo, one_by_one) for row in rows}


@pytest.fixture(scope="module")
def offloaded() -> dict[str, Row]:
    """OPT-66B with its weights in host memory."""
    return rows_of(some("flexgen", "opt-66b", 64))


def test_what_confidential_computing_costs_is_what_was_published(offloaded: dict[str, Row]) -> None:
    assert offloaded["serial"].drop_vs_off == pytest.approx(PUBLISHED_DROPS["opt-66b"], abs=0.05)


def test_pipellm_comes_within_two_points_of_the_link(offloaded: dict[str, Row]) -> None:
    assert offloaded["ideal"].link_drop == pytest.approx(1 - 40 / 64, abs=0.01)
    assert offloaded["pipelined"].software_drop < 0.02
    assert offloaded["pipelined"].hit_rate
    assert offloaded["pipelined"].hit_rate > 0.9


def test_a_server_says_how_long_a_token_takes() -> None:
    short = next(one for one in experiments(("vllm",), ("opt-13b",)) if "alpaca" in one.variant)
    row = Point(replace(short, units=600, warm=60), "off", "h100", SERVER).simulate()
    assert row.latency
    assert row.latency > 0.01


def test_every_row_has_what_a_report_needs(offloaded: dict[str, Row]) -> None:
    assert list(offloaded) == list(POLICIES)
    for case, row in offloaded.items():
        seen = row.as_json()
        assert seen["label"] == "simulated"
        assert {"system", "model", "throughput", "unit"} <= seen.keys()
        assert seen["case"] == case
        assert seen["drop_vs_off"] == pytest.approx(seen["link_drop"] + seen["software_drop"])
    rows = list(offloaded.values())
    assert len(list(tables(rows))) == 1
    assert sum(line.startswith("| opt-66b") for line in markdown(rows)) == len(rows)
    assert any("as shipped" in finding for finding in findings(rows))


def test_two_processes_find_the_same_rows_in_the_same_order() -> None:
    todo = points([some("peft", "opt-13b", 1)], ["h100"], [("", SERVER)])
    assert list(locally(todo)) == list(one_by_one(todo))


def test_models_that_do_not_fit_are_not_served() -> None:
    assert not list(experiments(("vllm",), ("opt-66b",)))


def test_a_sweep_doubles_or_lists() -> None:
    assert Sweep.parse("cores=1..64").values == (1, 2, 4, 8, 16, 32, 64)
    assert Sweep.parse("cores=3..20").values == (3, 6, 12, 20)
    assert Sweep.parse("cores=1..1").values == (1,)
    assert Sweep.parse("seal=5.5,18.5").values == (5.5, 18.5)
    settings = list(Sweep.parse("cores=2,4").hosts(SERVER))
    assert [(name, host.cores) for name, host in settings] == [("cores=2", 2), ("cores=4", 4)]


@pytest.mark.parametrize("text", ["cores", "cores=", "cores=8..1", "coers=1..2", "cores=x"])
def test_a_sweep_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        Sweep.parse(text)


@pytest.mark.parametrize(("name", "value"), [("cores", 1.5), ("cores", 0), ("seal", 0), ("gpu", 1)])
def test_a_host_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError):
        SERVER.with_(name, value)


def pipellm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipellm", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_and_writes_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    asked = ("--system", "peft", "--model", "opt-13b", "--profile", "h100", "--set", "cores=8")
    run = pipellm(*asked, "--json", str(file))
    assert run.returncode == 0, run.stderr
    assert "simulated" in run.stdout
    assert "cores 8" in run.stdout
    document = json.loads(file.read_text())
    assert document["host"]["cores"] == 8
    assert [row["case"] for row in document["rows"]] == list(POLICIES)


def test_the_command_simulates_as_much_as_was_asked_for_and_says_what_that_took() -> None:
    run = pipellm(
        *("--system", "flexgen", "--model", "opt-13b", "--profile", "h100", "--units", "8")
    )
    assert run.returncode == 0, run.stderr
    _, _, told = run.stdout.partition("Seconds of one core that it took, measured: ")
    assert [each.split()[0] for each in told.split(",")] == list(POLICIES)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--units", "0"), "--units 0"),
        (("--units", "9", "--trace", "x.jsonl"), "a trace is replayed as a whole"),
        (("--system", "flexgne"), "did you mean 'flexgen'?"),
        (("--model", "opt-67b"), "unknown model 'opt-67b'"),
        (("--set", "cores=many"), "expected QUANTITY=NUMBER"),
        (("--host", "here?"), "unknown host"),
        (("--system", "vllm", "--model", "opt-175b"), "nothing to simulate"),
        (("--check", "missing.json"), "No such file"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(asked: tuple[str, ...], says: str) -> None:
    run = pipellm(*asked)
    assert run.returncode == 2
    assert says in run.stderr
    assert run.stderr.count("\n") == 1
