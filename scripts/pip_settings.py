"""Prints pip's settings as uv's arguments, because uv does not read them.

    python scripts/pip_settings.py        # where packages come from: arguments of `uv pip install`
    python scripts/pip_settings.py cert   # the file of certificates, if pip was given one

Run by the Python whose pip is meant. Settings come from pip's configuration files and environment,
as `pip config list` tells them.
"""

from __future__ import annotations

import ast
import subprocess
import sys

_SECTIONS = ("global", "install", ":env:")
"""In pip's order: a later one overrides an earlier one."""


def settings() -> dict[str, list[str]]:
    """What `pip install` goes by: names as in a configuration file, values as lists of words."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, list[str]] = {}
    for section in _SECTIONS:
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key.removeprefix(f"{section}.")] = ast.literal_eval(value).split()
    return found


def arguments(pip: dict[str, list[str]]) -> list[str]:
    """The arguments by which `uv pip install` looks where pip would."""
    words = ["--index-strategy=unsafe-best-match"]  # pip, too, takes the best of all indexes
    words += [f"--default-index={url}" for url in pip.get("index-url", [])]
    words += [f"--index={url}" for url in pip.get("extra-index-url", [])]
    words += [f"--find-links={place}" for place in pip.get("find-links", [])]
    words += [f"--allow-insecure-host={host}" for host in pip.get("trusted-host", [])]
    if pip.get("no-index", ["no"])[0].lower() in ("1", "true", "yes", "on"):
        words.append("--no-index")
    return words


if __name__ == "__main__":
    if sys.argv[1:] == ["cert"]:
        print(*settings().get("cert", []))
    else:
        print(*arguments(settings()), sep="\n")
