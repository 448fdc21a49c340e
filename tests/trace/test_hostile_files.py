"""A trace file of anybody's: it can be shown, scored, drawn and simulated, or there is one line."""

from __future__ import annotations

import gzip
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipellm.bench.cases import recorded
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load as load_profile
from pipellm.runtime.policy import Policy
from pipellm.simulate.host import HOSTS
from pipellm.simulate.machine import Machine
from pipellm.trace import Recording, load, picture, summary
from pipellm.trace.replay import Recorded

FIRST = {
    "format": "pipellm trace",
    "version": 1,
    "program": ["python", "program.py"],
    "settings": {"gpu": "emulated", "profile": "h100", "policy": "pipelined"},
    "exit_status": 0,
}
HEAD: dict[str, Any] = {
    **{"name": "n", "model": "-", "unit": "runs", "pid": 1, "device": 0},
    **{"argv": [], "complete": True},
}
EVENTS: list[Any] = [
    [0, "c", "h2d", 4096, 1 << 20, 1, 0, "p"],
    [5, 0],
    [1, "k", 0, 1e9, 4096, 3],
    [1, "c", "d2h", 1 << 30, 1 << 20, 1, 2, "b"],
    [0, "a", 0, 2],
    [0, "w", 4096, 1 << 20],
    [9, "i", 0.5],
    [1, "s", 2],
    [1, 1],
    [1, "s"],
    [0, "d", 1],
]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e[/red]$\\frac{"


def written(folder: str | Path, lines: list[Any], *, events: int | None = None) -> Path:
    file = Path(folder) / "hostile.trace"
    count = len(lines) - 2 if events is None else events
    text = "\n".join(map(json.dumps, [*lines, {"events": count}])) + "\n"
    file.write_bytes(gzip.compress(text.encode()))
    return file


def used(file: Path) -> Recording:
    """Does all with it that the commands do, but for replaying it in real time."""
    recording = load(file)
    recorded(Recorded(str(file)))
    screen = Console(file=io.StringIO(), markup=False)
    summary.print_recording(recording, screen)
    for trace in recording.traces:
        summary.print_trace(trace, screen)
        summary.print_scores(trace, screen)
        for policy in ("off", "serial", "pipelined"):
            machine = Machine(load_profile("h100"), HOSTS["server"], Policy.named(policy))
            machine.run(trace, 1)
    assert isinstance(screen.file, io.StringIO)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", screen.file.getvalue())
    return recording


def test_the_example_is_a_trace(tmp_path: Path) -> None:
    assert len(used(written(tmp_path, [FIRST, HEAD, *EVENTS])).traces[0].steps) == len(EVENTS)


def tried(use: Callable[[], object]) -> None:
    """It works, or raises an error that is one line."""
    said = ""
    try:
        use()
    except UserError as error:
        said = str(error)
    assert "\n" not in said


@settings(deadline=None, max_examples=200)
@given(st.binary() | st.binary().map(gzip.compress))
def test_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hostile.trace"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"^cannot read the trace"):
            load(file)


odd = st.one_of(
    st.none(), st.booleans(), st.text(max_size=4), st.sampled_from([HOSTILE, "\ud800"]),
    st.floats(),
    st.integers(-2, 3), st.sampled_from([1 << 31, 1 << 40, (1 << 63) - 1, 1 << 64, -(1 << 70)]),
    st.sampled_from([[], {}, [[]], 1e300, 10**400]),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> tuple[list[Any], int | None]:
    """The lines of a good trace with something changed, and the number of events that it claims."""
    lines: list[Any] = [dict(FIRST), dict(HEAD), *(list(event) for event in EVENTS)]
    for _ in range(draw(st.integers(1, 3))):
        line = lines[draw(st.integers(0, len(lines) - 1))]
        if isinstance(line, dict):
            name = draw(st.sampled_from(sorted(line) or ["name"]))
            if draw(st.booleans()):
                line[name] = draw(odd)
            else:
                line.pop(name, None)
        elif line:
            place = draw(st.integers(0, len(line) - 1))
            match draw(st.integers(0, 2)):
                case 0:
                    line[place] = draw(odd)
                case 1:
                    del line[place]
                case 2:
                    line.insert(place, draw(odd))
    match draw(st.integers(0, 4)):
        case 0:
            lines.pop(draw(st.integers(0, len(lines) - 1)))
        case 1:
            lines.append(draw(st.sampled_from(lines)))
    return lines, draw(st.none() | st.integers(-1, 12))


@settings(deadline=None, max_examples=400)
@given(mutated())
def test_any_change_to_a_good_trace(change: tuple[list[Any], int | None]) -> None:
    lines, events = change
    with tempfile.TemporaryDirectory() as folder:
        tried(lambda: used(written(folder, lines, events=events)))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_shows_hostile_text_as_text(tmp_path: Path, suffix: str) -> None:
    head = HEAD | {"name": HOSTILE + "$a$" * 300, "model": HOSTILE}
    trace = used(written(tmp_path, [FIRST, head, *EVENTS])).trace()
    picture.draw(trace, tmp_path / f"picture{suffix}")
    content = (tmp_path / f"picture{suffix}").read_bytes()
    assert b"\x1b]0;" not in content


BOMBS: dict[str, Callable[[], bytes]] = {
    "nested": lambda: b"[" * 100_000_000,
    "one line": lambda: b"\0" * 100_000_000,
    "more events than there may be": lambda: (
        "\n".join([json.dumps(FIRST), json.dumps(HEAD), json.dumps(EVENTS[0])]).encode()
        + b"\n[1,0]" * 1_200_000
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_unpacks_to_more_than_memory_is_refused_within_two_gigabytes(
    tmp_path: Path, bomb: str
) -> None:
    """A tenth of the events that there may be, in a tenth of the memory."""
    file = tmp_path / "bomb.trace"
    file.write_bytes(gzip.compress(BOMBS[bomb](), 1))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    program = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from pipellm.trace import file, load\n"
        "from pipellm.errors import UserError\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "assert file.MOST_EVENTS == 10_000_000\n"
        "file.MOST_EVENTS //= 10\n"
        "before = used()\n"
        "try: load(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
        "assert before + 10 * (used() - before) < 2 << 30\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"cannot read the trace {file}: it ")


def test_what_asks_for_more_memory_than_there_is_is_not_replayed(tmp_path: Path) -> None:
    copies = [[1, "c", "h2d", n << 45, 1 << 40, 1, 0, "p"] for n in range(8)]
    file = written(tmp_path, [FIRST, HEAD, *copies, [1, "s"], [0, "d", 1]])
    with pytest.raises(UserError, match=r"its buffers take 17,\d+\.\d GB, and"):
        recorded(Recorded(str(file)))


def test_a_trace_without_an_end_is_not_replayed(tmp_path: Path) -> None:
    file = written(tmp_path, [FIRST, HEAD, *EVENTS[:3]])
    with pytest.raises(UserError, match="it copies nothing, or has no end"):
        recorded(Recorded(str(file)))
