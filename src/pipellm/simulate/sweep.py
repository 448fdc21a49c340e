"""Many points at once: on all local cores, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from pipellm.errors import UserError, unknown
from pipellm.simulate.host import Host, quantities
from pipellm.simulate.point import Point, Row

Runner = Callable[[Sequence[Point]], Generator[Row]]
"""Gives the rows of points, in their order, each as soon as all before it are there."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One quantity of the host, and the values it takes."""

    quantity: str
    values: tuple[float, ...]

    @staticmethod
    def parse(text: str) -> Sweep:
        """`cores=1..64` (doubling), or `seal=5.5,18.5`. Raises UserError for anything else."""
        name, equals, values = text.partition("=")
        if name not in quantities():
            raise unknown("quantity of a host", name, quantities())
        if doubling := re.fullmatch(r"(\d+)\.\.(\d+)", values):
            first, last = int(doubling[1]), int(doubling[2])
            if equals and 0 < first <= last:
                steps = [first << i for i in range(last.bit_length()) if first << i < last]
                return Sweep(name, (*map(float, steps), float(last)))
        try:
            return Sweep(name, tuple(float(value) for value in values.split(",")))
        except ValueError:
            raise UserError(
                f"--sweep {text}: expected QUANTITY=FIRST..LAST or QUANTITY=VALUE,VALUE"
            ) from None

    def hosts(self, host: Host) -> Iterator[tuple[str, Host]]:
        """Each setting's name, and the host with it."""
        for value in self.values:
            yield f"{self.quantity}={value:g}", host.with_(self.quantity, value)


def locally(points: Sequence[Point]) -> Generator[Row]:
    """On the cores of this process, one point each."""
    workers = min(len(os.sched_getaffinity(0)), len(points))
    if workers < 2:
        yield from map(Point.simulate, points)
        return
    # Not forked: the caller may have threads. Ctrl-C reaches the whole process group; it is for the
    # caller to end the workers.
    context = multiprocessing.get_context("spawn")
    ignored = (signal.SIGINT, signal.SIG_IGN)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=ignored)
    try:
        yield from pool.map(Point.simulate, points)
    except BrokenProcessPool:
        raise UserError(
            "a simulating process was killed; if memory ran out, give fewer cores "
            "(taskset -c 0 pipellm simulate ...)"
        ) from None
    finally:
        # Those that are at work would go on for minutes.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def on_ray(address: str) -> Runner:
    """On the Ray cluster at `address` (`auto`: the one that this machine belongs to).

    Raises UserError if there is none.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray: Ray is not installed; try: pip install ray") from None
    _require_answer(address)
    try:
        with _silence():
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--ray {address}: no such cluster: {reason}") from None

    def run(points: Sequence[Point]) -> Generator[Row]:
        try:
            simulate = ray.remote(Point.simulate)
            for task in [simulate.remote(point) for point in points]:
                yield ray.get(task)
        finally:
            ray.shutdown()

    return run


def _require_answer(address: str) -> None:
    """Ray tries for minutes. Raises UserError at once if nobody answers at HOST:PORT."""
    if (given := re.fullmatch(r"(?:ray://)?([^/:]+):([0-9]{1,5})", address)) is None:
        return
    try:
        socket.create_connection((given[1], int(given[2])), timeout=10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--ray {address}: nobody answers there: {reason}") from None


@contextmanager
def _silence() -> Iterator[None]:
    """Without what Ray's own threads write to standard error: the exception says it once more."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
