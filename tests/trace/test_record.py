"""What is recorded is what the program asked for, under every policy and however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipellm.trace import Trace
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
from tests.trace.conftest import Record

KIB, MIB = 1 << 10, 1 << 20
H2D, D2H = Direction.H2D, Direction.D2H

PROGRAM = """
    import torch
    weights = torch.ones(512, 512).pin_memory()
    pageable = torch.ones(64, 512)
    side = torch.cuda.Stream()
    for step in range(3):
        w = weights.to("cuda", non_blocking=True)
        y = torch.relu(pageable.cuda() @ w)
        with torch.cuda.stream(side):
            side.wait_stream(torch.cuda.default_stream())
            kept = y.to("cpu", non_blocking=True)
        side.synchronize()
        if step == 1:
            weights.mul_(2)
    torch.cuda.synchronize()
    assert float(kept[0, 0]) == 1024
"""


def asked(trace: Trace) -> list[Event]:
    """Without the host's own time, which is different every time, and which parts operators."""
    events: list[Event] = []
    for step in trace.steps:
        event, last = step.event, events[-1] if events else None
        if isinstance(event, Compute) and isinstance(last, Compute) and event.stream == last.stream:
            events[-1] = Compute(
                last.flops + event.flops,
                last.nbytes + event.nbytes,
                last.stream,
                kernels=last.kernels + event.kernels,
            )
        elif not isinstance(event, Idle):
            events.append(event)
    return events


@pytest.mark.parametrize("policy", ["off", "serial", "pipelined"])
def test_a_program_is_recorded_event_by_event(record: Record, policy: str) -> None:
    recording = record(PROGRAM, "--policy", policy)
    assert (recording.settings["policy"], recording.exit_status) == (policy, 0)
    (trace,) = recording.traces
    assert (trace.name, trace.complete, trace.device) == ("program", True, 0)
    steps = asked(trace)
    weights, inputs = steps[0], steps[1]
    assert isinstance(weights, Copy)
    assert isinstance(inputs, Copy)
    wait = next(event for event in steps if isinstance(event, StreamWait))
    side = wait.stream
    arithmetic = 2 * 64 * 512 * 512 + 64 * 512
    touched = 4 * (64 * 512 + 512 * 512 + 64 * 512) + 4 * 2 * 64 * 512
    pattern = [
        Copy(H2D, weights.address, MIB, 0, 0, blocking=False, pinned=True),
        Copy(H2D, inputs.address, 128 * KIB, 0, 0, blocking=True, pinned=False),
        Compute(arithmetic, touched, 0, kernels=2),
        StreamWait(side, 0),
        Copy(D2H, 0, 128 * KIB, 0, side, blocking=False, pinned=True),
        Synchronize(side),
    ]
    changed = Write(weights.address, MIB)
    expected = [*pattern, *pattern, changed, *pattern, Synchronize(), Synchronize(), Done()]
    assert side != 0
    assert [_anywhere(event) for event in steps] == expected


def _anywhere(event: Event) -> Event:
    """A copy wherever its device side is, and its host side if the allocator chose it."""
    if not isinstance(event, Copy):
        return event
    address = event.address if event.direction is H2D else 0
    how = {"blocking": event.blocking, "pinned": event.pinned}
    return Copy(event.direction, address, event.nbytes, 0, event.stream, **how)


def test_a_program_that_python_reads_from_its_input_is_recorded(record: Record) -> None:
    (trace,) = record("import torch; torch.ones(4).cuda()", "--policy", "off", typed=True).traces
    assert trace.name == Path(sys.executable).name


def test_times_go_forward_and_idle_time_is_the_programs_own(record: Record) -> None:
    trace = record("""
        import time, torch
        device = torch.zeros(1 << 20).cuda()
        time.sleep(0.2)
        device.cpu()
    """).trace()
    times = [step.at for step in trace.steps]
    assert times == sorted(times)
    assert times[0] == 0
    assert max(s.event.seconds for s in trace.steps if isinstance(s.event, Idle)) >= 0.2


@pytest.mark.parametrize("policy", ["off", "pipelined"])
def test_a_program_that_is_killed_has_a_trace(record: Record, policy: str) -> None:
    recording = record(
        """
        import os, torch
        for _ in range(2000):
            torch.ones(2000).cuda()
        os.kill(os.getpid(), 9)
        """,
        *("--policy", policy),
        status=-signal.SIGKILL,
    )
    assert recording.exit_status is None
    copies = [event for event in asked(recording.trace()) if isinstance(event, Copy)]
    assert [copy.nbytes for copy in copies] == [8000] * 2000


def test_every_process_and_every_device_has_a_trace_of_its_own(record: Record) -> None:
    recording = record(
        """
        import os, subprocess, sys, torch
        torch.ones(1000).to("cuda:1")
        if len(sys.argv) == 1:
            subprocess.run([sys.executable, __file__, "child"], check=True)
            if os.fork() == 0:
                os._exit(0)  # has nothing to do with the device
        else:
            torch.ones(500).to("cuda:0")
        """,
        *("--gpu", "emulated:2"),
    )
    parts = [(trace.argv[-1] == "child", trace.device) for trace in recording.traces]
    assert parts == [(False, 1), (True, 0), (True, 1)]
    assert len({trace.pid for trace in recording.traces}) == 2
    for trace in recording.traces:
        (copy,) = (event for event in asked(trace) if isinstance(event, Copy))
        assert copy.nbytes == (2000 if trace.device == 0 else 4000)


def test_a_forked_child_records_what_it_does_itself(record: Record) -> None:
    recording = record("""
        import os, torch
        if os.fork() == 0:
            torch.ones(300).cuda()
            os._exit(0)
        os.wait()
        torch.ones(200).cuda()
    """)
    sizes = [
        [event.nbytes for event in asked(trace) if isinstance(event, Copy)]
        for trace in recording.traces
    ]
    assert sorted(sizes) == [[800], [1200]]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipellm", "trace", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_that_asks_nothing_is_said_to(tmp_path: Path) -> None:
    target = tmp_path / "none.trace"
    program = (sys.executable, "-c", "import torch")
    done = run("record", "-o", target, "--quiet", "--profile", "fast", "--", *program)
    assert (done.returncode, target.exists()) == (0, False)
    assert done.stderr == (
        "pipellm: warning: no trace was written: the program asked nothing of the device\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--", "true"], "the following arguments are required: -o/--output"),
        (["record", "-o", "x.trace"], "no program given; try: pipellm trace record -o FILE -- "),
        (["record", "-o", "no/such/folder/x", "--", "true"], "cannot write the trace to "),
        (
            ["record", "-o", "x", "--gpu", "own", "--attach", "libcrypto", "--", "true"],
            "a trace of gpu own: only what an emulated GPU is asked can be recorded",
        ),
        (["show", "nothing.trace"], "cannot read the trace nothing.trace: No such file"),
        (["stats", __file__], f"cannot read the trace {__file__}: it is not a trace"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
