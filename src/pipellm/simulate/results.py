"""Results as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipellm.errors import UserError


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Raises UserError if it cannot be written."""
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}") from None
