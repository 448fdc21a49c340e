"""The folder in which compiled backends are kept: whose it must be, and what is trusted in it.

What lies there is loaded into the program. So it must come from this user or root, and be what the
build left. A library has in its name what it was made for and the SHA-256 of what is in it:
`torch_backend-2.13.0+cpu-<recipe>-<content>.so`. Who may have written it, its owner and mode say.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipellm.errors import UserError

_SCRATCH_PREFIX = ".torch_backend-build-"
_MARKER = "a-build-of-pipellm"
"""The file that says that a folder is ours to remove: the user may have one of any name."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder `path`. It need not exist yet."""

    path: Path

    @classmethod
    def of_this_user(cls) -> Cache:
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

    def find(self, name: str) -> Path | None:
        """The library that was kept as `name`, if there is one and it is what it was.

        Raises UserError if others may put libraries into the folder.
        """
        try:
            self._require_own()
            return next((file for file in self._kept_as(name) if _is_intact(file)), None)
        except OSError:  # no folder yet, or none at all: `changing` will find out
            return None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Makes the folder if need be, and lets one process at a time change what is in it.

        Raises UserError if others may as well, and for what goes wrong with the folder inside.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_own()
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

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder for one build. Removes what killed builds have left; call it while
        `changing`, so that there is no other."""
        for folder in self.path.glob(f"{_SCRATCH_PREFIX}*"):
            if _is_own(folder.lstat(), stat.S_IFDIR) and (folder / _MARKER).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=self.path))
        try:
            (folder / _MARKER).touch()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, name: str, built: Path) -> Path:
        """Moves the library `built` in as `name`, and returns where it is. What was kept as that
        before, and is no longer intact, goes."""
        built.chmod(0o755)  # whatever the umask says
        for damaged in self._kept_as(name):
            if _is_own(damaged.lstat(), stat.S_IFREG):
                damaged.unlink()
        return built.rename(self.path / f"{name}-{_digest(built)}.so")

    def _kept_as(self, name: str) -> list[Path]:
        pattern = re.compile(re.escape(name) + r"-[0-9a-f]{64}\.so")
        return [file for file in self.path.iterdir() if pattern.fullmatch(file.name)]

    def _require_own(self) -> None:
        status = self.path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not _is_own(status, stat.S_IFDIR):
            raise UserError(
                f"others may write to the cache folder {self.path}, and what is in it is run: "
                f"make it your own (chown, chmod go-w), or name another in PIPELLM_CACHE"
            )


def _is_own(status: os.stat_result, kind: int) -> bool:
    """Whether it is of that kind, and nobody but this user and root can change it."""
    return (
        stat.S_IFMT(status.st_mode) == kind
        and status.st_uid in (0, os.geteuid())
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _is_intact(library: Path) -> bool:
    return _is_own(library.lstat(), stat.S_IFREG) and library.stem.rpartition("-")[2] == _digest(
        library
    )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
