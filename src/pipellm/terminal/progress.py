"""How far work has come: a bar on a terminal; in a log file a line for each step, with the time."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from rich import progress

from pipellm.terminal.console import console


class Progress:
    """Shows on standard error which step of `total` the work has come to. A context manager."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        screen = console(stderr=True)
        self._bar: progress.Progress | None = None
        if screen.is_terminal and not screen.is_dumb_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                console=screen,
                transient=True,
            )
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begins(self, step: str) -> None:
        """The next step begins."""
        self._show(step, self._done, self._done + 1)
        self._done += 1

    def ended(self, step: str) -> None:
        """Another step is done."""
        self._done += 1
        self._show(step, self._done, self._done)

    def _show(self, step: str, completed: int, number: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._what}: {step}", completed=completed)
            return
        line = f"{time.strftime('%H:%M:%S')} {self._what} {number}/{self._total}: {step}"
        with contextlib.suppress(OSError):  # a full disk is no reason to stop measuring
            print(line, file=sys.stderr, flush=True)
