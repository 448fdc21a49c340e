"""Files that a user asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipellm.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Raises UserError if it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Raises UserError if it cannot be written."""
    write_text(path, json.dumps(document, indent=1) + "\n")
