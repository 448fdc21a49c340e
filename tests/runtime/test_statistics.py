"""Every copy is counted once, by the process that made it, whatever becomes of that process."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.errors import UserError
from pipellm.runtime.report import Process, collect, merge
from pipellm.runtime.statistics import COUNTERS, SUFFIX, Statistics
from pipellm.settings import Settings


def count(statistics: Statistics, **amounts: int) -> None:
    for name, amount in amounts.items():
        statistics.counters[COUNTERS.index(name)] += amount


def in_child(work: object) -> None:
    """Runs `work` in a forked child."""
    assert callable(work)
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_counters_are_kept_when_the_process_is_killed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        statistics = Statistics(tmp_path, argv=["x"])
        count(statistics, h2d_bytes=7)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (process,) = collect(tmp_path)
    assert process.counts["h2d_bytes"] == 7
    assert process.identity["argv"] == ["x"]


def test_a_forked_child_counts_from_zero_in_the_same_buffer(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    counters = statistics.counters  # what the driver of parent and child writes to
    counters[0] = 5

    def work() -> None:
        counters[0] += 1
        in_child(lambda: counters.__setitem__(0, counters[0] + 2))

    in_child(work)
    assert counters[0] == 5
    assert [process.counts["h2d_transfers"] for process in collect(tmp_path)] == [5, 1, 2]
    assert len({process.identity["pid"] for process in collect(tmp_path)}) == 3


def test_a_forked_child_that_counts_nothing_is_no_process_of_the_report(tmp_path: Path) -> None:
    Statistics(tmp_path)
    in_child(lambda: None)
    (process,) = collect(tmp_path)
    assert process.identity["pid"] == os.getpid()


def test_counters_without_a_directory_are_a_processs_own() -> None:
    statistics = Statistics(None)
    count(statistics, d2h_bytes=1)
    in_child(lambda: count(statistics, d2h_bytes=10))
    assert statistics.counters[COUNTERS.index("d2h_bytes")] == 1


def test_a_directory_that_is_gone_is_no_reason_to_stop(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path / "gone")
    count(statistics, h2d_bytes=1)
    statistics.describe(engine="any")


def test_a_directory_that_cannot_be_written_to_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot keep statistics in .*: Not a directory"):
        Statistics(tmp_path / "file")


def test_the_driver_may_have_counters_of_its_own_in_an_order_of_its_own(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    names = (*reversed(COUNTERS), "surprises")
    statistics.declare(names)
    statistics.counters[names.index("h2d_bytes")] = 3
    statistics.counters[names.index("surprises")] = 4
    merged = merge(Settings(), collect(tmp_path))
    assert (merged["h2d"]["bytes"], merged["surprises"]) == (3, 4)


def test_a_driver_that_lacks_counters_of_the_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auth_failures"):
        Statistics(tmp_path).declare(["h2d_bytes"])


def test_a_process_may_add_a_section_and_take_it_back(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    statistics.describe(speculation={"hits": list(range(1000))})
    statistics.describe(speculation={"hits": 1})
    (part,) = merge(Settings(), collect(tmp_path))["processes"]
    assert part["speculation"] == {"hits": 1}


def test_a_process_that_will_not_use_the_device_leaves_nothing(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path)
    statistics.discard()
    statistics.describe(engine="any")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_never_finished_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1-x.statistics").write_bytes(b"\0" * 4096)
    assert collect(tmp_path) == []


counts = st.fixed_dictionaries({name: st.integers(0, 2**53) for name in COUNTERS})
engines = st.sampled_from([None, "ipsec-mb", "openssl"])


@given(st.lists(st.tuples(counts, engines)))
def test_a_report_is_the_sum_of_its_processes(parts: list[tuple[dict[str, int], str]]) -> None:
    processes = [Process({"pid": 1, "engine": engine}, counts) for counts, engine in parts]
    merged = json.loads(json.dumps(merge(Settings(), processes)))
    for direction in ("h2d", "d2h"):
        for what in ("transfers", "bytes", "swaps"):
            total = sum(process[direction][what] for process in merged["processes"])
            assert merged[direction][what] == total
    assert merged["auth_failures"] == sum(counts["auth_failures"] for counts, _ in parts)
    named = {engine for _, engine in parts if engine}
    assert set((merged["engine"] or "").split(", ")) - {""} == named


@given(st.binary(max_size=300) | st.just(b'{"pid": 1}\n') | st.just(b"[" * 100_000 + b"\n"))
def test_a_process_that_left_rubbish_costs_the_report_nothing_else(rubbish: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Statistics(folder).describe(engine="openssl")
        (folder / f"1{SUFFIX}").write_bytes(b"\0" * 4096 + rubbish)
        assert [process.identity["pid"] for process in collect(folder)] == [os.getpid()]
