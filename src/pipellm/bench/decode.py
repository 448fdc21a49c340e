"""A decode loop as a serving engine has it: is the GPU kept busy, and what does a copy call take?

    python -m pipellm.bench.decode
    python -m pipellm.bench.decode --policy off --policy serial --seconds 1 --repeats 3

Each step is a millisecond of Python that holds the GIL, 64 KiB to the device, a forward pass, and 4
KiB back. The forward pass is modelled work on a stream, and copies a part of what came in to what
goes back: so each step's result is known, and checked.

The program speaks to the driver's C table. Under torch an operator of the emulated device runs on
the host at once, so its thread would wait for copies where that of a GPU does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import byref
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from statistics import median, quantiles
from threading import Thread

from rich.console import Console
from rich.table import Table

from pipellm import _native
from pipellm.bench.driver_table import D2H, H2D, Copy, DriverTable
from pipellm.bench.spread import Spread
from pipellm.bench.stage import WrongBytesError
from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import load
from pipellm.runtime.opening import open_under
from pipellm.runtime.policy import POLICIES, Policy
from pipellm.runtime.statistics import Statistics

_IN, _OUT = 64 << 10, 4 << 10
_PYTHON_NS = 1_000_000
_WARM = 20  # steps before those that count
_OFF, _SERIAL = "off", "serial"


@dataclass(frozen=True, slots=True)
class Seen:
    """One loop under one policy. Times are the emulated machine's."""

    busy: float
    """The share of the time in which the device computed."""
    step_ms: float
    in_us: tuple[float, float]
    """A call for a copy to the device: median, 99th percentile."""
    out_us: tuple[float, float]
    """A call for a copy back."""


class Engine:
    """The program: its buffers, twice each, and what a step does."""

    def __init__(self, driver: _native.Driver, forward_ms: float) -> None:
        table = self.table = DriverTable(driver)
        self.compute, self.prepare, self.readback = (table.stream() for _ in range(3))
        self._clock = driver.clock
        self._forward_ns = round(forward_ms * 1e6)
        self._host_in = [table.host_alloc(_IN) for _ in range(2)]
        self._host_out = [table.host_alloc(_OUT) for _ in range(2)]
        self._stages = [table.malloc(_IN) for _ in range(2)]
        self._inputs = [table.malloc(_IN) for _ in range(2)]
        self._outputs = [table.malloc(_OUT) for _ in range(2)]
        self._ready = [table.event() for _ in range(2)]
        self._home = [table.event() for _ in range(2)]
        self.calls: dict[int, array[int]] = {H2D: array("q"), D2H: array("q")}

    def think(self, step: int) -> None:
        """What a scheduler does in Python, and the step's input."""
        until = self._clock.now() + _PYTHON_NS
        while self._clock.now() < until:
            pass
        _native.fill_pattern(self._host_in[step % 2], _IN, step)

    def send(self, step: int) -> None:
        """The input, on the stream that computes."""
        self._copy(H2D, self._inputs[step % 2], self._host_in[step % 2], _IN, self.compute)

    def stage(self, step: int) -> None:
        """The input, by a stream of its own to a buffer on the device, and on from there."""
        slot, table = step % 2, self.table
        self._copy(H2D, self._stages[slot], self._host_in[slot], _IN, self.prepare)
        table.call("event_record", self._ready[slot], self.prepare)
        table.call("stream_wait_event", 0, self.compute, self._ready[slot])
        table.copy_on_device((self._inputs[slot], self._stages[slot], _IN), stream=self.compute)

    def forward(self, step: int) -> None:
        """Compute, and say when that is done."""
        slot, table = step % 2, self.table
        table.call("busy", 0, self.compute, self._forward_ns)
        table.copy_on_device((self._outputs[slot], self._inputs[slot], _OUT), stream=self.compute)
        table.call("event_record", self._ready[slot], self.compute)

    def fetch(self, step: int, stream: int) -> None:
        """The result, on a stream that waits for it."""
        slot, table = step % 2, self.table
        if stream != self.compute:
            table.call("stream_wait_event", 0, stream, self._ready[slot])
        self._copy(D2H, self._host_out[slot], self._outputs[slot], _OUT, stream)
        table.call("event_record", self._home[slot], stream)

    def check(self, step: int) -> None:
        """Wait for the result. Raises WrongBytesError if it is not this step's."""
        slot = step % 2
        self.table.call("event_synchronize", self._home[slot])
        if not _native.holds_pattern(self._host_out[slot], _OUT, step):
            raise WrongBytesError(f"step {step} brought back another result")

    def _copy(
        self, direction: int, destination: int, source: int, nbytes: int, stream: int
    ) -> None:
        request = byref(Copy(0, direction, destination, source, nbytes, 1, 0, stream))
        begun = self._clock.now()
        self.table.call("copy", request)
        self.calls[direction].append(self._clock.now() - begun)


def synchronous(engine: Engine, steps: range) -> None:
    """Each step waits for its result."""
    for step in steps:
        engine.think(step)
        engine.send(step)
        engine.forward(step)
        engine.fetch(step, engine.compute)
        engine.check(step)


def asynchronous(engine: Engine, steps: range) -> None:
    """The next step's input is prepared and sent while the device computes."""
    for step in steps:
        engine.think(step)
        engine.send(step)
        engine.forward(step)
        engine.fetch(step, engine.readback)
        if step > steps[0]:
            engine.check(step - 1)
    engine.check(steps[-1])


def staged(engine: Engine, steps: range) -> None:
    """The same, made for calls that block: the input goes by a stream that has nothing else to do,
    and a thread that has nothing else to do asks for the result."""
    wanted: SimpleQueue[int | None] = SimpleQueue()
    came: SimpleQueue[Exception | None] = SimpleQueue()

    def work() -> None:
        while (step := wanted.get()) is not None:
            try:
                engine.fetch(step, engine.readback)
                engine.check(step)
            except Exception as error:
                came.put(error)
                return
            came.put(None)

    def finish() -> None:
        if (error := came.get()) is not None:
            raise error

    worker = Thread(target=work, daemon=True)
    worker.start()
    for step in steps:
        engine.think(step)
        engine.stage(step)
        engine.forward(step)
        wanted.put(step)
        if step > steps[0]:
            finish()
    finish()
    wanted.put(None)
    worker.join()


LOOPS: Mapping[str, Callable[[Engine, range], None]] = {
    "synchronous": synchronous,
    "asynchronous": asynchronous,
    "staged": staged,
}


def measure(
    driver: _native.Driver, loop: Callable[[Engine, range], None], forward_ms: float, steps: int
) -> Seen:
    """One loop of so many steps. Raises WrongBytesError."""
    engine = Engine(driver, forward_ms)
    loop(engine, range(1, _WARM))
    for calls in engine.calls.values():
        del calls[:]
    begun = driver.clock.now()
    loop(engine, range(_WARM, _WARM + steps))
    engine.table.synchronize()
    spent = driver.clock.now() - begun
    return Seen(
        steps * forward_ms * 1e6 / spent,
        spent / steps / 1e6,
        _call_us(engine.calls[H2D]),
        _call_us(engine.calls[D2H]),
    )


def _call_us(calls: Sequence[int]) -> tuple[float, float]:
    return median(calls) / 1e3, quantiles(calls, n=100)[98] / 1e3


def child(policy: str, profile: str, forward_ms: Sequence[float], seconds: float) -> None:
    """All loops under one policy, for so many seconds each; prints them as JSON."""
    driver = open_under(Policy.named(policy), load(profile), 1, Statistics(None))
    seen = {
        f"{loop} {forward:g}": asdict(
            measure(driver, LOOPS[loop], forward, max(round(seconds * 1e3 / forward), 4))
        )
        for loop in LOOPS
        for forward in forward_ms
    }
    driver.stop_threads()
    print(json.dumps(seen))


def _in_a_process(policy: str, arguments: argparse.Namespace) -> dict[str, Seen]:
    command = [sys.executable, "-m", "pipellm.bench.decode", "--measure", "--policy", policy]
    command += ["--profile", arguments.profile, "--seconds", str(arguments.seconds)]
    for forward in arguments.forward_ms:
        command += ["--forward-ms", str(forward)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise UserError(f"{policy}: {last[0]}")
    return {name: Seen(**seen) for name, seen in json.loads(done.stdout).items()}


def report(runs: Sequence[Mapping[str, Mapping[str, Seen]]]) -> Table:
    """What the repetitions come to: each a policy's loops. Ratios are within a repetition."""
    table = Table(title=f"measured, median of {len(runs)} (least to most); call: median, p99")
    columns = ("loop", "forward", "policy", "GPU busy", "of off's", "step", "in", "x off's", "out")
    for column in columns:
        table.add_column(column, justify="left" if column in ("loop", "policy") else "right")
    for name in runs[0][_OFF]:
        for policy in runs[0]:
            mine = [run[policy][name] for run in runs]
            base = [run[_OFF][name] for run in runs]
            pairs = list(zip(mine, base, strict=True))
            loop, forward = name.split()
            table.add_row(
                *(loop, f"{forward} ms", policy),
                f"{Spread.of(one.busy for one in mine):.1%}",
                f"{Spread.of(one.busy / off.busy for one, off in pairs):.1%}",
                f"{median(one.step_ms for one in mine):.2f} ms",
                _call(one.in_us for one in mine),
                f"{Spread.of(one.in_us[0] / off.in_us[0] for one, off in pairs):.1f}",
                _call(one.out_us for one in mine),
            )
        table.add_section()
    return table


def _call(times: Iterable[tuple[float, float]]) -> str:
    each = list(times)
    return f"{median(one[0] for one in each):,.0f}, {median(one[1] for one in each):,.0f} µs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipellm.bench.decode", allow_abbrev=False)
    parser.add_argument("--policy", action="append", choices=POLICIES, help="may be repeated")
    parser.add_argument("--profile", default="b300")
    parser.add_argument("--forward-ms", action="append", type=float, help="may be repeated")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each loop")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.forward_ms = arguments.forward_ms or [3.0, 10.0]
    policies = arguments.policy or [name for name in POLICIES if name != "ideal"]
    if arguments.measure:
        child(policies[0], arguments.profile, arguments.forward_ms, arguments.seconds)
        return
    runs = []
    for _ in range(arguments.repeats):
        runs.append(
            {name: _in_a_process(name, arguments) for name in dict.fromkeys((_OFF, *policies))}
        )
    Console(width=170).print(report(runs))


if __name__ == "__main__":
    main()
