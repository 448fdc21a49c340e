"""Standard output that may be full, closed, or know no Unicode; and complaints."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from pipellm.terminal.text import plain

_LONGEST = 2000
"""Characters of a complaint: it may quote a file."""


class FullOutputError(Exception):
    """Standard output takes no more; the message says why."""


class ClosedOutputError(Exception):
    """Nobody reads standard output any more."""

    def die(self) -> int:
        """Ends this process as SIGPIPE ends other programs; returns the status if that cannot be,
        as in the first process of a container."""
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 128 + signal.SIGPIPE


@contextmanager
def standard_output() -> Iterator[None]:
    """Within it, what cannot be written to standard output raises one of the errors above, also at
    the end, when the rest of it is written. What its encoding lacks is written as an escape."""
    stream = sys.stdout
    if stream is None:
        yield
        return
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, _Checked(stream))
    try:
        yield
        sys.stdout.flush()
    except SystemExit:  # of --help, which does not say whether it could be written
        sys.stdout.flush()
        raise
    finally:
        sys.stdout = stream


def complain(what: str) -> None:
    """One line on standard error."""
    line = plain(what)
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    with contextlib.suppress(OSError):
        print(f"pipellm: {line}", file=sys.stderr, flush=True)


class _Checked:
    """A stream whose errors can be told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._errors():
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python writes the rest once more when it ends, and would complain once more.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise ClosedOutputError from None
            raise FullOutputError(f"cannot write to standard output: {error.strerror}") from None
