"""Progress on the terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Display:
    """One line per piece: a bar on a terminal, a line at the end of each piece elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[stage]}"),
            console=console,
            disable=not console.is_terminal,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self._progress:
            yield

    @contextmanager
    def piece(self, name: str, steps: int | None = None) -> Iterator["Piece"]:
        """Shows one piece while it runs; a bar that fills if the number of steps is known."""
        task = self._progress.add_task(name, total=steps, stage="")
        began = time.monotonic()
        yield Piece(self._progress, task)
        self._progress.update(task, total=steps or 1, completed=steps or 1, stage="")
        if not self._console.is_terminal:
            self._console.print(f"{name}: {time.monotonic() - began:.0f} s")


def yes(same: bool) -> str:
    """As a table says whether two things are the same."""
    return "[green]yes" if same else "[bold red]NO"


class Piece:
    """What a running piece may show."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def stage(self, text: str) -> None:
        self._progress.update(self._task, stage=escape(text))

    def step(self, text: str) -> None:
        self._progress.update(self._task, advance=1, stage=escape(text))
