"""A trace file holds what was put in it, or is refused in one line."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipellm.errors import UserError
from pipellm.terminal.text import plain
from pipellm.trace import Recording, Timed, Trace, load
from pipellm.trace.file import save
from pipellm.transfers import Direction
from pipellm.workloads.events import (
    Compute,
    Copy,
    Done,
    Event,
    Idle,
    StreamWait,
    Synchronize,
    Write,
)

addresses = st.integers(0, 2**63 - 1)
sizes = st.integers(1, 2**40)
streams = st.integers(0, 2**31)
amounts = st.floats(0, 1e24)
copies = st.builds(
    Copy, st.sampled_from(Direction), addresses, sizes, addresses, streams, st.booleans(),
    st.booleans(),
)  # fmt: skip
events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from([Copy(Direction.H2D, 1 << 40, 1 << 20, 1 << 41), Synchronize()]),  # repeated
    copies,
    st.builds(Compute, amounts, amounts, streams, st.integers(0, 2**32)),
    st.builds(Synchronize, st.none() | streams),
    st.builds(StreamWait, streams, streams),
    st.builds(Write, addresses, sizes),
    st.builds(Idle, st.floats(0, 1e9)),
    st.builds(Done, st.integers(1, 2**31)),
)
words = st.text(max_size=8).map(plain)
traces = st.builds(
    Trace,
    name=words,
    model=words,
    steps=st.lists(st.builds(Timed, st.integers(0, 2**50), events), max_size=30).map(tuple),
    pid=st.integers(1, 2**22),
    device=st.integers(0, 15),
    argv=st.lists(words, max_size=3).map(tuple),
    complete=st.booleans(),
)
recordings = st.builds(
    Recording,
    program=st.lists(words, max_size=3).map(tuple),
    settings=st.fixed_dictionaries({"gpu": words, "profile": words, "policy": words}),
    exit_status=st.none() | st.integers(0, 255),
    traces=st.lists(traces, min_size=1, max_size=3).map(tuple),
)


@settings(deadline=None)
@given(recordings)
def test_what_is_read_is_what_was_written(recording: Recording) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.trace"
        save(file, recording)
        assert load(file) == recording


EXAMPLE = Recording(
    ("python", "program.py"),
    {"gpu": "emulated", "profile": "fast", "policy": "off"},
    0,
    (Trace("program", "-", tuple(Timed(at, Synchronize()) for at in range(200))),),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "example.trace"
    save(path, EXAMPLE)
    return path


def test_what_repeats_costs_next_to_nothing(tmp_path: Path) -> None:
    copies = [Copy(Direction.H2D, n << 20, 1 << 20, n << 21) for n in range(200)]
    steps = tuple(Timed(n * 1000, copies[n % 200]) for n in range(20_000))
    save(tmp_path / "long.trace", replace(EXAMPLE, traces=(Trace("long", "-", steps),)))
    assert (tmp_path / "long.trace").stat().st_size < 20_000


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: math.floor(len(content) * kept)])
    with pytest.raises(UserError, match=r"^cannot read the trace .*(cut off|not a trace)"):
        load(file)


def test_lines_that_are_missing_are_missed(file: Path) -> None:
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    for missing in ([*lines[:10], *lines[11:]], lines[:-1], lines[:2], lines[:1]):
        file.write_bytes(gzip.compress(b"".join(missing)))
        with pytest.raises(UserError, match="damaged or cut off; record it again"):
            load(file)


@pytest.mark.parametrize("position", [30, 60, 90])
def test_a_flipped_bit_is_noticed(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match="record it again"):
        load(file)


def test_another_version_is_refused_by_its_number(file: Path) -> None:
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    header = json.loads(lines[0]) | {"version": 7}
    file.write_bytes(gzip.compress("\n".join([json.dumps(header), *lines[1:]]).encode()))
    with pytest.raises(UserError, match="it has version 7 of the format, and this PipeLLM reads"):
        load(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", gzip.compress(b"[]\n"), gzip.compress(b"{}\n")],
    ids=["empty", "not compressed", "a list", "no header"],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other.trace"
    other.write_bytes(content)
    with pytest.raises(UserError, match="cannot read the trace"):
        load(other)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "nothing.trace")


def test_a_trace_is_chosen_by_its_number_or_by_what_it_copied() -> None:
    copy = Copy(Direction.D2H, 1, 5, 1)
    small, large = (
        Trace(name, "-", (Timed(0, copy),) * count) for name, count in (("a", 1), ("b", 2))
    )
    recording = Recording((), {}, 0, (small, large, small))
    assert recording.trace() is large
    assert recording.trace(1) is small
    with pytest.raises(UserError, match="no trace 4 in it, only 1 to 3"):
        recording.trace(4)
