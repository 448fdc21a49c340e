"""The commands that README.md and docs/*.md show, read from the pages themselves.

On a page, what a reader is to type is an indented block or one fenced as `sh`; everything else
(Python, a configuration, a picture) is fenced as what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code on a page."""

    page: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of `page`, in order."""
    name = str(page.relative_to(REPOSITORY))
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "code_block":
            yield Block(name, "sh", token.content)
        elif token.type == "fence":
            yield Block(name, token.info.strip(), token.content)


def commands(page: Path) -> Sequence[str]:
    """The commands of `page` in order, each on one line and without its comment."""
    return [
        command
        for block in blocks(page)
        if block.language == "sh"
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines()
        if (command := re.sub(r"(^|\s+)# .*", "", line).strip())
    ]
