"""Folders that are made once: completely or not at all, under a name that tells the recipe."""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from examples import process
from examples.display import Display


def located(parent: Path, recipe: Iterable[Path]) -> Path:
    """Where what these files make belongs under `parent`, made or not."""
    content = hashlib.sha256()
    for file in recipe:
        content.update(file.read_bytes())
    return parent.resolve() / f"model-{content.hexdigest()[:12]}"


def made(folder: Path, make: Callable[[Path], None]) -> bool:
    """Has `make` fill the folder unless it is there; returns whether it had to.

    What other recipes made beside it is removed.
    """
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as name:
        unfinished = Path(name) / "model"
        unfinished.mkdir()
        make(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was first; its model is as good as this one.
            if not folder.exists():
                raise
    for outdated in folder.parent.glob("model-*"):
        if outdated != folder:
            shutil.rmtree(outdated, ignore_errors=True)
    return True


def make(display: Display, name: str, module: str, parent: Path) -> None:
    """Has a module make what belongs under `parent`, in a process of its own, and shows it.

    Raises PieceError if it fails.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with display.piece(name) as piece:
        process.run(
            [sys.executable, "-m", module, str(parent)],
            log=parent / "model.txt",
            on_line=piece.stage,
            environment={"HF_HUB_OFFLINE": "1"},
        )
