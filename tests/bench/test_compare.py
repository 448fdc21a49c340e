"""What repetitions say: medians of ratios within a repetition, and what the host lacks."""

from __future__ import annotations

import pytest

from pipellm.bench.cases import CASES, chosen
from pipellm.bench.compare import Plan, as_json, limit, row
from pipellm.bench.measure import Measured
from pipellm.bench.spread import Spread
from pipellm.channel import engines

CASE = CASES["flexgen-opt-30b"]


def measured(seconds: float, *, pool: float = 0.0, ahead: float = 0.0) -> Measured:
    return Measured(
        seconds=seconds,
        host_seconds=seconds,
        rounds=1,
        units=64,
        checked_bytes=1,
        hits=3,
        misses=1,
        copied_bytes=2_000_000_000,
        sealed_bytes=2_000_000_000,
        cpu_s=seconds / 2,
        pool_cpu_s=pool,
        device_cpu_s=0.0,
        paused_s=0.0,
        ahead_bytes_per_cpu_s=ahead,
        host_gbps={"libcrypto": 4.0},
    )


def test_ratios_are_taken_within_a_repetition() -> None:
    # The machine was half as fast the second time, which is nobody's merit.
    repetitions = [
        {
            "off": measured(0.5),
            "ideal": measured(1.0),
            "serial": measured(4.0),
            "pipelined": measured(1.25),
        },
        {
            "off": measured(1.0),
            "ideal": measured(2.0),
            "serial": measured(8.0),
            "pipelined": measured(2.5),
        },
    ]
    found = row(CASE, "pipelined", "scaled", repetitions)
    assert found.of_ideal == Spread(0.8, 0.8, 0.8)
    assert found.over_serial == Spread(3.2, 3.2, 3.2)
    assert found.of_off == Spread(0.4, 0.4, 0.4)
    assert found.hit_rate == Spread(0.75, 0.75, 0.75)
    assert found.cores.median == 0.5
    assert found.cpu_s_per_gb == Spread(0.46875, 0.3125, 0.625)
    # Of the whole model: a sixteenth of it was replayed.
    assert found.throughput.median == pytest.approx(2.4)
    assert as_json(found)["throughput_spread"] == [1.6, 3.2]
    assert as_json(found)["label"] == "replayed, 1 of 16 layers"


def test_ideal_seals_nothing_and_plans_nothing() -> None:
    found = row(CASE, "ideal", "scaled", [{"off": measured(0.5), "ideal": measured(1.0)}])
    assert found.seal_gbps is None
    assert found.hit_rate is None
    assert found.of_ideal.median == 1


def test_it_says_when_the_host_is_what_lacks() -> None:
    alone = max(engines.measured().gigabytes_per_second.values()) * 1e9
    many = 1000.0  # seconds on a CPU in one second: more than any machine's cores
    assert limit([measured(1.0, pool=many, ahead=alone)], 0.8) == "cores"
    assert limit([measured(1.0, ahead=alone / 4)], 0.8) == "memory, or other programs"
    assert limit([measured(1.0, ahead=alone)], 0.8) == ""
    assert limit([measured(1.0, pool=many, ahead=alone / 4)], 0.97) == ""


def test_a_case_is_chosen_by_its_name_or_what_it_begins_with() -> None:
    assert [case.key for case in chosen("random")] == ["random"]
    assert len(chosen("flexgen")) == 3
    assert [case.key for case in chosen("peft-opt-13b")] == ["peft-opt-13b"]
    assert chosen("flex") == []


def test_a_plan_counts_its_measurements() -> None:
    plan = Plan([CASE], ["serial", "pipelined"], "h100", None, 1.0, repeats=3)
    assert plan.measurements == 1 + 3 * 4  # off and ideal are measured in any case
