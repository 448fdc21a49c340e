"""The one way to write a file that a user asked for: checked before the work, never seen half done.

What was there before stays until the new content is whole and on the disk. A temporary file beside
it is written, synchronised and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipellm.errors import UserError
from pipellm.terminal.output import complain


@dataclass(frozen=True, slots=True)
class Output:
    """Where something is to be written."""

    path: Path
    what: str
    """For error messages: `statistics`."""

    def check(self, *others: Path | None) -> None:
        """Raises UserError if it cannot be written, or if it is one of `others`, which the same
        command reads or writes. Leaves nothing there."""
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    raise self._fault("not a regular file")
                if not os.access(self.path, os.W_OK):
                    raise self._fault("Permission denied")
            # Trying is the only test that knows of read-only file systems and full directories.
            draft, descriptor = self._draft()
            os.close(descriptor)
            draft.unlink()
        except OSError as error:
            raise self._fault(error.strerror) from None
        for other in others:
            if other is not None and os.path.realpath(other) == str(self._real):
                raise self._fault("this command uses that file already; give another name")

    def write(self, content: bytes) -> None:
        """Writes it. Raises UserError; what was there before is there still, then."""
        try:
            draft, descriptor = self._draft()
        except OSError as error:
            raise self._fault(error.strerror) from None
        try:
            with open(descriptor, "wb") as file:
                with contextlib.suppress(OSError):
                    os.fchmod(descriptor, stat.S_IMODE(os.stat(self._real).st_mode))
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._fault(error.strerror) from None
            raise
        try:
            draft.replace(self._real)
        except OSError as error:
            raise self._fault(f"{error.strerror}; what was to be written is in {draft}") from None
        _synchronise(self._real.parent)

    def write_text(self, text: str) -> None:
        """Writes it as UTF-8. Raises UserError."""
        self.write(text.encode("utf-8", errors="backslashreplace"))

    def write_json(self, document: Mapping[str, Any]) -> None:
        """Writes it as JSON. Raises UserError."""
        self.write_text(json.dumps(document, indent=1) + "\n")

    @property
    def _real(self) -> Path:
        """Behind symbolic links, which stay what they are."""
        return Path(os.path.realpath(self.path))

    def _draft(self) -> tuple[Path, int]:
        """A new file in the same folder, and its descriptor. Its name cannot be foreseen, so nobody
        can have put a link there."""
        path = self._real.parent / f".pipellm-{secrets.token_hex(8)}.draft"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return path, os.open(path, flags, 0o666)

    def _fault(self, what: str | None) -> UserError:
        return UserError(f"cannot write {self.what} to {self.path}: {what}")


class Growing:
    """A JSON document that is written as its parts come, so that nothing is lost if the work stops.

    An older file is not replaced before the new document is whole: until then that is in a file
    beside it, whose name ends with `.partial`. A document that is not whole says so:
    `"complete": false`. As a context manager around the work it writes the whole document at the
    end, or says on standard error what is kept if the work stopped before.
    """

    def __init__(
        self,
        output: Output | None,
        document: Callable[[], Mapping[str, Any]],
        what: str,
        total: int,
    ) -> None:
        """`document` makes the document as it is by then; `output` is None if nobody wants a file.
        The work is `total` of `what`."""
        self._whole = self._partial = output
        if output is not None and output.path.exists():
            beside = output.path.with_name(f"{output.path.name}.partial")
            self._partial = Output(beside, output.what)
        self._document = document
        self._what = what
        self._total = total
        self._done = 0
        self._failed = False

    def add(self, count: int = 1) -> None:
        """So many more are done. If the file cannot be written that is said once, and the work may
        go on."""
        self._done += count
        if self._partial is None:
            return
        try:
            self._partial.write_json({"complete": False, **self._document()})
            self._failed = False
        except UserError as error:
            if not self._failed:
                complain(f"warning: {error}")
            self._failed = True

    def __enter__(self) -> Growing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is not None:
            if not self._done and kind is not KeyboardInterrupt:
                return  # the error says all there is to say
            where_kept = ""
            if self._partial is not None and self._done and not self._failed:
                where_kept = f"; they are kept in {self._partial.path}"
            complain(f"stopped with {self._done} of {self._total} {self._what} done{where_kept}")
        elif self._whole is not None and self._partial is not None:
            self._whole.write_json(self._document())
            if self._partial is not self._whole:
                with contextlib.suppress(OSError):
                    self._partial.path.unlink(missing_ok=True)


def _synchronise(directory: Path) -> None:
    """The new name, too, is to outlive a power failure, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
