"""A file that a run ends with: checked before the program starts, and never seen half written."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pipellm.errors import UserError


@dataclass(frozen=True, slots=True)
class Target:
    """Where something is to be written."""

    path: Path
    what: str
    """For error messages: `statistics`."""

    def check(self) -> None:
        """Raises UserError if it cannot be written. Leaves nothing there."""
        try:
            if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
                raise UserError(f"cannot write {self.what} to {self.path}: not a regular file")
            # Trying is the only test that knows of read-only file systems and full directories.
            self._draft.touch()
            self._draft.unlink()
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, content: bytes) -> None:
        """Writes it. Raises UserError."""
        try:
            self._draft.write_bytes(content)
            self._draft.replace(self.path.resolve())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._draft.unlink(missing_ok=True)
            raise self._unwritable(error) from None

    @property
    def _draft(self) -> Path:
        real = self.path.resolve()
        return real.with_name(f".{real.name}.{os.getpid()}.draft")

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self.what} to {self.path}: {error.strerror}")
