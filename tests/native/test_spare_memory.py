"""Memory is taken for convenience only where an eighth of it would be left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm._native import memory_is_plentiful

TOTAL = 64 << 30


def machine(root: Path, available: int) -> Path:
    """A machine whose control groups have no limit yet."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:       {TOTAL >> 10} kB\nMemFree:        1 kB\n"
        f"MemAvailable:   {available >> 10} kB\n"
    )
    (root / "proc/self/cgroup").write_text("1:cpu:/other\n")
    return root


def group(root: Path, *, version: int, limit: object, usage: int, cached: int = 0) -> None:
    """Puts this process into the group /pod/box, whose parent has the limit."""
    limits, current, inactive, folder, line = {
        1: (
            *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            *("sys/fs/cgroup/memory", "4:memory:/pod/box\n"),
        ),
        2: ("memory.max", "memory.current", "inactive_file", "sys/fs/cgroup", "0::/pod/box\n"),
    }[version]
    (root / "proc/self/cgroup").write_text(line)
    parent = root / folder / "pod"
    (parent / "box").mkdir(parents=True)
    (parent / limits).write_text(f"{limit}\n")
    (parent / current).write_text(f"{usage}\n")
    (parent / "memory.stat").write_text(f"anon 1\nfile 2\n{inactive} {cached}\n")


def test_this_machine_says_how_much_it_has() -> None:
    assert memory_is_plentiful()


@given(available=st.integers(0, TOTAL))
def test_an_eighth_of_the_machine_must_be_left(
    tmp_path_factory: pytest.TempPathFactory, available: int
) -> None:
    root = machine(tmp_path_factory.mktemp("root"), available)
    assert memory_is_plentiful(str(root)) == (available >> 10 >= TOTAL >> 13)


def test_a_machine_that_does_not_say_has_none(tmp_path: Path) -> None:
    assert not memory_is_plentiful(str(tmp_path))


@pytest.mark.parametrize("version", [1, 2])
@given(usage=st.integers(0, 1000), cached=st.integers(0, 1000))
def test_an_eighth_of_a_groups_limit_must_be_left(
    tmp_path_factory: pytest.TempPathFactory, version: int, usage: int, cached: int
) -> None:
    root = machine(tmp_path_factory.mktemp("root"), TOTAL)
    group(root, version=version, limit=1000, usage=usage, cached=cached)
    assert memory_is_plentiful(str(root)) == (usage - cached <= 875)


def test_a_group_without_a_limit_forbids_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, TOTAL)
    group(root, version=2, limit="max", usage=TOTAL)
    assert memory_is_plentiful(str(root))
