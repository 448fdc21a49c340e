"""Profiles say what they were measured to say, and complain in one line when they are faulty."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import PROFILES, Cost, Profile, load, names
from pipellm.gpu.emulated.profile_table import Curve

DIRECTIONS = ("h2d", "d2h")
MEMORIES = ("pinned", "pageable")
MIB64 = 64 << 20


def cost(profile: Profile, cc: str, direction: str, memory: str) -> Cost:
    chosen = getattr(getattr(profile.link(cc == "on"), direction), memory)
    assert isinstance(chosen, Cost)
    return chosen


def gigabytes_per_second(curve: Curve) -> float:
    """The rate of large copies, without what they cost at 0 bytes."""
    return MIB64 / (curve.microseconds(MIB64) - curve.microseconds(0)) / 1e3


def measured() -> Iterator[dict[str, str]]:
    with (PROFILES / "h100_nvl_copies.csv").open(encoding="utf-8") as table:
        yield from csv.DictReader(table)


def test_the_profiles_of_the_package_load() -> None:
    assert names() == ("b300", "fast", "h100", "h100-nvl")
    for name in names():
        assert load(name).source == name


@pytest.mark.parametrize("name", ["h100", "h100-nvl", "b300"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_confidential_computing_is_never_faster(name: str, direction: str, memory: str) -> None:
    profile = load(name)
    off, on = (cost(profile, cc, direction, memory) for cc in ("off", "on"))
    assert off.call is not None
    for nbytes in (0, 1000, 64_000, 1 << 20, MIB64):
        assert off.engine.microseconds(nbytes) <= off.call.microseconds(nbytes)
        assert off.engine.microseconds(nbytes) <= 1.2 * on.engine.microseconds(nbytes)
        if on.call is not None:
            assert off.call.microseconds(nbytes) < on.call.microseconds(nbytes)
    assert 0 == off.toll_us < on.toll_us


@pytest.mark.parametrize("field", ["call", "engine"])
def test_h100_nvl_reproduces_the_medians_that_were_measured(field: str) -> None:
    profile = load("h100-nvl")
    column = {"call": "api_us_median", "engine": "engine_us_median"}[field]
    checked = 0
    for row in measured():
        if int(row["n"]) < 100 or int(row["bytes"]) < 64_000:
            continue
        curve = getattr(
            cost(profile, row["cc"], row["direction"].lower(), row["host_memory"]), field
        )
        modelled = curve.microseconds(int(row["bytes"]))
        assert modelled == pytest.approx(float(row[column]), rel=0.25), row
        checked += 1
    assert checked == 20


def test_h100_nvl_reproduces_small_calls() -> None:
    profile = load("h100-nvl")
    for row in measured():
        if int(row["n"]) < 100 or int(row["bytes"]) >= 64_000:
            continue
        call = cost(profile, row["cc"], row["direction"].lower(), row["host_memory"]).call
        assert call is not None
        modelled = call.microseconds(int(row["bytes"]))
        assert modelled == pytest.approx(float(row["api_us_median"]), rel=0.25), row


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_h100_has_the_papers_link(direction: str, memory: str) -> None:
    profile = load("h100")
    off, on = (cost(profile, cc, direction, memory) for cc in ("off", "on"))
    assert gigabytes_per_second(off.engine) == pytest.approx(64, rel=1e-3)
    assert gigabytes_per_second(on.engine) == pytest.approx(40, rel=1e-3)
    assert on.call is None, "a call takes what this host's sealing takes"


@pytest.mark.parametrize(("direction", "ratio"), [("h2d", 0.203), ("d2h", 0.211)])
def test_b300_has_the_published_ratios_and_toll(direction: str, ratio: float) -> None:
    profile = load("b300")
    off = cost(profile, "off", direction, "pinned").call
    on = cost(profile, "on", direction, "pinned")
    assert off is not None
    assert on.call is not None
    assert gigabytes_per_second(on.call) / gigabytes_per_second(off) == pytest.approx(ratio, 1e-3)
    assert on.call.microseconds(0) == on.toll_us == 330


def test_fast_costs_nothing() -> None:
    profile = load("fast")
    for cc in ("off", "on"):
        assert profile.link(cc == "on").launch_us == 0
        for direction in DIRECTIONS:
            for memory in MEMORIES:
                free = cost(profile, cc, direction, memory)
                assert free.engine.microseconds(MIB64) == free.toll_us == 0
                assert free.call is None or free.call.microseconds(MIB64) == 0


knots = st.lists(
    st.tuples(st.integers(1, 1 << 30), st.floats(0, 1e6)), max_size=6, unique_by=lambda k: k[0]
).map(
    lambda drawn: tuple(
        zip(
            [0, *sorted(size for size, _ in drawn)],
            [0.0, *sorted(time for _, time in drawn)],
            strict=True,
        )
    )
)


@given(knots, st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_a_curve_passes_through_its_knots_and_never_falls(
    drawn: tuple[tuple[int, float], ...], one: int, other: int
) -> None:
    curve = Curve(drawn)
    for nbytes, time in drawn:
        assert curve.microseconds(nbytes) == pytest.approx(time)
    below, above = (curve.microseconds(nbytes) for nbytes in sorted((one, other)))
    assert below <= above * (1 + 1e-9) + 1e-9


def test_a_curve_goes_on_with_its_last_slope() -> None:
    assert Curve(((0, 1.0), (10, 2.0), (20, 4.0))).microseconds(30) == pytest.approx(6)
    assert Curve(((0, 3.0),)).microseconds(1 << 30) == 3


def document() -> dict[str, Any]:
    return tomllib.loads((PROFILES / "h100-nvl.toml").read_text(encoding="utf-8"))


def toml(table: dict[str, Any]) -> str:
    """TOML, of inline tables only."""

    def value(item: object) -> str:
        match item:
            case bool():
                return str(item).lower()
            case dict():
                return "{" + ", ".join(f"{key} = {value(v)}" for key, v in item.items()) + "}"
            case list():
                return "[" + ", ".join(map(value, item)) + "]"
            case str():
                return f"'{item}'"
            case _:
                return str(item)

    return "\n".join(f"{key} = {value(item)}" for key, item in table.items())


ABSENT = object()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("name", ABSENT, "missing; expected a string"),
        ("name", 3, "expected a string that is not empty, not 3"),
        ("name", "", "expected a string that is not empty, not ''"),
        ("memory_gib", 0, "expected a number above 0, not 0"),
        ("memory_gib", "80", "expected a number above 0, not '80'"),
        ("memory_gib", True, "expected a number above 0, not True"),
        ("capability", [9], "expected two whole numbers such as [9, 0], not [9]"),
        ("capability", 9.0, "expected two whole numbers such as [9, 0], not 9.0"),
        ("multiprocessors", 1.5, "expected a whole number above 0, not 1.5"),
        ("clock_mhz", -1, "expected a whole number above 0, not -1"),
        ("off", ABSENT, "missing; expected a table"),
        ("on", 1, "expected a table, not 1"),
        ("on.duplex", 1, "expected true or false, not 1"),
        ("on.launch_us", -0.5, "expected a number from 0 up, not -0.5"),
        ("on.launch_us", float("nan"), "expected a number from 0 up, not nan"),
        ("on.launch_us", float("inf"), "expected a number from 0 up, not inf"),
        ("on.h2d.pinned", ABSENT, "missing; expected a table"),
        ("on.h2d.pinned.toll_us", ABSENT, "missing; expected a number from 0 up"),
        ("off.h2d.pinned.toll_us", 1, "no such field"),
        ("off.h2d.pinned.call_us", ABSENT, "missing; expected knots [[bytes, microseconds], ...]"),
        ("off.h2d.pinned.engine_us", [], "expected knots [[bytes, microseconds], ...], not []"),
        ("off.h2d.pinned.engine_us", 3, "expected knots [[bytes, microseconds], ...], not 3"),
        ("on.d2h.pageable.call_us", [3], "knot 1: expected [bytes, microseconds], not 3"),
        (
            "on.d2h.pageable.call_us",
            [[0, 1], [1.5, 2]],
            "knot 2: expected [bytes, microseconds], not [1.5, 2]",
        ),
        ("on.d2h.pageable.call_us", [[1, 1]], "knot 1: expected to be at 0 bytes, not 1"),
        (
            "on.d2h.pageable.call_us",
            [[0, -1]],
            "knot 1: expected numbers from 0 up, not [0, -1]",
        ),
        (
            "on.d2h.pageable.call_us",
            [[0, 1], [5, 2], [5, 3]],
            "knot 3: expected more than 5 bytes, not 5",
        ),
        (
            "on.d2h.pageable.call_us",
            [[0, 1], [5, 0.5]],
            "knot 2: expected 1 microseconds or more, not 0.5",
        ),
        ("on.launch", 1, "no such field; did you mean launch_us?"),
        ("on.h2d.pined", {}, "no such field; did you mean pinned?"),
        ("memory_gb", 80, "no such field; did you mean memory_gib?"),
    ],
)
def test_a_faulty_profile_is_refused_in_one_line(
    tmp_path: Path, field: str, value: object, complaint: str
) -> None:
    faulty = document()
    *path, last = field.split(".")
    table = faulty
    for key in path:
        table = table[key]
    if value is ABSENT:
        del table[last]
    else:
        table[last] = value
    file = tmp_path / "mine.toml"
    file.write_text(toml(faulty))
    with pytest.raises(UserError) as caught:
        load(str(file))
    assert str(caught.value).startswith(f"profile mine.toml: {field}: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"^profile mine\.toml: not TOML: [^\n]+$"):
        load(str(file))


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("memory_gib", "9" * 5000, "not TOML: Exceeds the limit"),
        ("memory_gib", "1e308", "memory_gib: expected at most 1,048,576, not 1e\\+308"),
        (
            "multiprocessors",
            "9" * 400,
            "multiprocessors: expected at most 1,000,",
        ),
        ("launch_us", "[" * 5000, "nested too deeply"),
        ("pinned", f"{{engine_us = [[0, {'9' * 400}]]}}", "engine_us: expected at most"),
    ],
)
def test_numbers_beyond_all_measure_are_refused(
    tmp_path: Path, field: str, value: str, complaint: str
) -> None:
    lines = (PROFILES / "fast.toml").read_text().splitlines()
    changed = [f"{field} = {value}" if line.startswith(f"{field} ") else line for line in lines]
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(changed))
    with pytest.raises(UserError, match=complaint):
        load(str(file))


def test_a_profile_of_any_size_takes_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    with file.open("wb") as large:
        large.truncate(1 << 40)
    with pytest.raises(UserError, match="it has more than 1024 KiB"):
        load(str(file))
