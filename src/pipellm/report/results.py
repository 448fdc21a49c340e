"""The JSON files of a folder, as sections of a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipellm.errors import UserError
from pipellm.input import read_json
from pipellm.report import bench, check, doctor, simulation
from pipellm.report.section import Section

Document = Mapping[str, Any]

KINDS: tuple[tuple[Callable[[Document], bool], Callable[[str, Document], Section]], ...] = (
    (bench.wrote, bench.section),
    (simulation.wrote, simulation.section),
    (check.wrote, check.section),
    (doctor.wrote, doctor.section),
)
"""Whether a file is of a kind, and what becomes of it."""


def files(folder: Path) -> list[Path]:
    """The JSON files of the folder. Raises UserError if it is none, or cannot be read."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is no folder; give the one that holds the JSON files")
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None


def sections(folder: Path) -> tuple[list[Section], list[str]]:
    """One section per result, by file name; and the names of JSON files that are none.

    Raises UserError if the folder has no results, or a file of it cannot be read.
    """
    found, others = [], []
    for path in files(folder):
        document = read_json(path)
        if not isinstance(document, dict):
            document = {}
        for wrote, section in KINDS:
            if wrote(document):
                found.append(_made(path, document, section))
                break
        else:
            others.append(path.name)
    if not found:
        raise UserError(
            f"{folder} has no results; write some with `pipellm bench --json {folder}/bench.json`, "
            "`pipellm simulate --json`, `pipellm doctor --json`"
        )
    return found, others


def _made(path: Path, document: Document, section: Callable[[str, Document], Section]) -> Section:
    try:
        return section(path.name, document)
    except ValueError as error:
        raise UserError(
            f"{path} is not as this version writes it ({error}); make it again"
        ) from None
