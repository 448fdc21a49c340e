"""Telling a signal that was sent to the launcher from one that its whole process group got.

The first is to be forwarded to the program; the second has reached the program already. The signal
itself does not say which it is: `kill -INT PID` and `kill -INT -PGID` look the same to who gets it.
So a second process, which does nothing else, sits in the group: what it got as well, all have got.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable

from pipellm.attach.prctl import die_with_parent

_PATIENCE_S = 1.0
"""For the answer. Somebody may have stopped the witness alone."""


class Witness:
    """A child of this process, in its process group. The `signals` must be blocked here when it is
    made, and stay so. Raises OSError if there can be no more processes."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._seen: set[int] = set()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.settimeout(_PATIENCE_S)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._line.close()
                die_with_parent()
                if os.getppid() == parent:
                    _answer(theirs, frozenset(signals))
            finally:
                os._exit(0)
        theirs.close()

    def all_got(self, number: int) -> bool:
        """Whether a signal that has come here has come to the whole group. Each is told once."""
        try:
            self._line.send(b"?")
            self._seen.update(self._line.recv(256)[1:])
        except OSError:  # it was killed or stopped: better twice than never
            return False
        if number not in self._seen:
            return False
        self._seen.discard(number)
        return True

    def dismiss(self) -> None:
        """Ends it."""
        self._line.close()
        os.kill(self._pid, signal.SIGKILL)  # it may be stopped
        os.waitpid(self._pid, 0)


def _answer(line: socket.socket, signals: frozenset[int]) -> None:
    """In the witness: tells what has come since it was last asked, until the launcher ends."""
    # Ctrl-Z is for the program; who stops has no answer when the launcher goes on.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
    while line.recv(1):
        seen = []
        while (received := signal.sigtimedwait(signals, 0)) is not None:
            seen.append(received.si_signo)
        line.send(bytes([0, *seen]))
