"""The folder in which compiled backends are kept, and what is trusted in it.

What lies there is loaded into the program. So it must come from this user or root, and be what the
build left. A library has in its name what it was made for and the SHA-256 of what is in it:
`torch_backend-2.13.0+cpu-<recipe>-<content>.so`. Who may have written it, its owner and mode say.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipellm.own_folder import OwnFolder, is_own

_SCRATCH_PREFIX = ".torch_backend-build-"
_MARKER = "a-build-of-pipellm"
"""The file that says that a folder is ours to remove: the user may have one of any name."""


class Cache(OwnFolder):
    """The folder of this user, as the place of compiled backends."""

    def find(self, name: str) -> Path | None:
        """The library that was kept as `name`, if there is one and it is what it was.

        Raises UserError if others may put libraries into the folder.
        """
        try:
            self.require_own()
            return next((file for file in self._kept_as(name) if _is_intact(file)), None)
        except OSError:  # no folder yet, or none at all: `changing` will find out
            return None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder for one build. Removes what killed builds have left; call it while
        `changing`, so that there is no other."""
        for folder in self.path.glob(f"{_SCRATCH_PREFIX}*"):
            if is_own(folder.lstat(), stat.S_IFDIR) and (folder / _MARKER).is_file():
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
            if is_own(damaged.lstat(), stat.S_IFREG):
                damaged.unlink()
        return built.rename(self.path / f"{name}-{_digest(built)}.so")

    def _kept_as(self, name: str) -> list[Path]:
        pattern = re.compile(re.escape(name) + r"-[0-9a-f]{64}\.so")
        return [file for file in self.path.iterdir() if pattern.fullmatch(file.name)]


def _is_intact(library: Path) -> bool:
    return is_own(library.lstat(), stat.S_IFREG) and library.stem.rpartition("-")[2] == _digest(
        library
    )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
