"""Text of others, fit to be shown."""

from __future__ import annotations


def plain(text: str) -> str:
    """`text` with every character that is not printable as its escape: `\\x1b` for an escape.

    No control character, no change of the direction of writing, no half of a surrogate pair and no
    line break is left: it is one line, and does nothing to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def plain_all(value: object) -> object:
    """A JSON value with every string in it, keys included, plain."""
    match value:
        case str():
            return plain(value)
        case list():
            return [plain_all(item) for item in value]
        case dict():
            return {plain_all(key): plain_all(item) for key, item in value.items()}
    return value
