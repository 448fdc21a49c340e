"""The JSON files of a folder, as sections of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipellm.errors import UserError
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


def sections(folder: Path) -> tuple[list[Section], list[str]]:
    """One section per result, by file name; and the names of JSON files that are none.

    Raises UserError if the folder has no results, or a file of it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the one that holds the JSON files")
    found, others = [], []
    for path in sorted(folder.glob("*.json")):
        document = _read(path)
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


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    return document if isinstance(document, dict) else {}


def _made(path: Path, document: Document, section: Callable[[str, Document], Section]) -> Section:
    try:
        return section(path.name, document)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not as this version writes it ({error!r}); make it again"
        ) from None
