"""The folders that PipeLLM keeps for this user, and whose they must be.

What lies in them is loaded into programs, or written to by programs that outlive the run. So nobody
else may be able to write there, or to make such a folder anew under a path that is still in use:
they are never removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipellm.errors import UserError


def temporary_folder() -> Path:
    """A new empty folder for one run, for the caller to remove.

    It lies in `pipellm-UID` in the folder for temporary files. That stays, so that the path is
    nobody else's when the run is over. Raises UserError.
    """
    try:
        shared = Path(tempfile.gettempdir()).absolute() / f"pipellm-{os.geteuid()}"
        shared.mkdir(mode=0o700, exist_ok=True)
        # Not through a link: who made that could point it elsewhere later.
        if not is_own(shared.lstat(), stat.S_IFDIR):
            raise UserError(
                f"others may write to {shared}: make it your own (chown, chmod go-w), or set "
                "TMPDIR to another directory"
            )
        return Path(tempfile.mkdtemp(prefix="run-", dir=shared))
    except FileExistsError:
        raise UserError(f"{shared} is not a folder: remove it, or set TMPDIR") from None
    except OSError as error:
        raise UserError(
            f"no room for temporary files: {error.strerror}; set TMPDIR to a directory that has it"
        ) from None


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """The cache folder `path`, for what is made once and kept. It need not exist yet."""

    path: Path

    @classmethod
    def of_this_user(cls) -> Self:
        """`$PIPELLM_CACHE`, or `pipellm` in the user's cache folder. Raises UserError for a user
        without a home."""
        if own := os.environ.get("PIPELLM_CACHE"):
            return cls(Path(own).absolute())
        if shared := os.environ.get("XDG_CACHE_HOME"):
            return cls(Path(shared).absolute() / "pipellm")
        try:
            return cls(Path.home() / ".cache" / "pipellm")
        except RuntimeError as error:
            message = "there is no home folder: name a cache folder in PIPELLM_CACHE"
            raise UserError(message) from error

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Makes the folder if need be, and lets one process at a time change what is in it.

        Raises UserError if others may as well, and for what goes wrong with the folder inside.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.require_own()
            # The lock is the folder itself, so there is no lock file to leave behind, and it ends
            # with its holder, however that ends.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            problem = "is full" if full else f"cannot be written ({error.strerror})"
            raise UserError(
                f"the cache folder {self.path} {problem}: make room there, "
                "or name another folder in PIPELLM_CACHE"
            ) from error

    def require_own(self) -> None:
        """Raises UserError if others may write there, and OSError if there is no such folder."""
        status = self.path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not is_own(status, stat.S_IFDIR):
            raise UserError(
                f"others may write to the cache folder {self.path}, and what is in it is run: "
                f"make it your own (chown, chmod go-w), or name another in PIPELLM_CACHE"
            )

    def file(self, name: str, content: bytes) -> Path:
        """The file `name` with that content, which is written if it is not there, or not intact.

        Raises UserError.
        """
        file = self.path / name
        with self.changing():
            if not _holds(file, content):
                draft = file.with_name(f"{name}.part")
                draft.unlink(missing_ok=True)
                draft.write_bytes(content)
                draft.chmod(0o644)  # whatever the umask says
                draft.replace(file)
        return file


def is_own(status: os.stat_result, kind: int) -> bool:
    """Whether it is of that kind, and nobody but this user and root can change it."""
    return (
        stat.S_IFMT(status.st_mode) == kind
        and status.st_uid in (0, os.geteuid())
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _holds(file: Path, content: bytes) -> bool:
    try:
        return is_own(file.lstat(), stat.S_IFREG) and file.read_bytes() == content
    except FileNotFoundError:
        return False
