"""The one way to read a file that somebody gave: bounded, checked, fit to be shown.

Whatever is in it, it is read, or there is one line of error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from pipellm.errors import UserError
from pipellm.terminal.text import plain_all

MOST_BYTES = 32 << 20
"""A hundred times what the largest of our own documents has."""

Figure = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A number that can be shown and drawn."""
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
"""One that can be divided by."""
MOST_ROWS = msgspec.Meta(min_length=1, max_length=20_000)

_T = TypeVar("_T")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All that is in the file. Raises UserError if it cannot be read, or holds more than `most`."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > most:
        raise UserError(f"cannot read {path}: it has more than {most >> 20} MiB")
    return content


def read_json(path: Path) -> object:
    """The JSON value in the file, its strings plain. Raises UserError."""
    try:
        return plain_all(msgspec.json.decode(read_bytes(path)))
    except RecursionError:
        raise UserError(f"{path} is no JSON of ours: it is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no JSON: {error}") from None


def checked(value: object, schema: type[_T]) -> _T:
    """`value` as the `schema` wants it. Raises ValueError, which says what is wrong and where."""
    try:
        return msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
