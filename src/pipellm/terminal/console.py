"""Where the user is shown something."""

from __future__ import annotations

import os

from rich.console import Console

_WIDTH = 120
"""Of a file or a pipe, which has none of its own."""


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error. Text is shown as it is: nothing in it is markup."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        made.width = _WIDTH
    return made
