"""Errors that a user can cause, and how they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

_T = TypeVar("_T")


class UserError(Exception):
    """Something the user can put right.

    The message is one line that says what is wrong and what to do. At the edge of the program (the
    command line, a program that PipeLLM was attached to) it is printed as `pipellm: <message>` and
    the process ends with status 2.
    """


def choice(kind: str, name: str, choices: Mapping[str, _T]) -> _T:
    """The one of `choices` that is called `name`; raises UserError if there is none."""
    try:
        return choices[name]
    except KeyError:
        raise unknown(kind, name, choices) from None


def unknown(kind: str, value: str, choices: Iterable[str]) -> UserError:
    """The error for a `value` that is none of `choices`, with the nearest one if there is one."""
    from difflib import get_close_matches  # slow to import, and rarely needed

    known = list(choices)
    nearest = get_close_matches(value.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"unknown {kind} {value!r} (choose from {', '.join(known)}){hint}")
