"""The extra that a message says to install has the package that is missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import REPOSITORY

SOURCES = sorted((REPOSITORY / "src" / "pipellm").rglob("*.py"))


def third_party(file: Path) -> set[str]:
    """The packages that `file` imports and that are neither ours nor Python's."""
    names = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    return names - set(sys.stdlib_module_names) - {"pipellm", ""}


def test_every_package_that_a_file_with_a_remedy_imports_is_in_that_extra() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    checked = 0
    for file in SOURCES:
        extras = set(re.findall(r"pipellm\[(\w+)\]", file.read_text()))
        if not extras:
            continue
        listed = {*project["dependencies"]}
        for extra in extras:
            listed.update(project["optional-dependencies"][extra])
        names = {re.split(r"[<>=\[]", entry)[0] for entry in listed}
        assert third_party(file) - names - {"torch"} <= {"pynvml"}, file
        checked += 1
    assert checked >= 2
