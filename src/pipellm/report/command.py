"""`pipellm report`: the page, written where the results lie."""

from __future__ import annotations

import sys
from pathlib import Path

from pipellm.errors import UserError
from pipellm.output import write_text
from pipellm.report import markdown
from pipellm.report.results import sections

PAGE = "report.html"


def run(folder: Path, page_path: Path | None, markdown_path: Path | None) -> int:
    """Writes the page (and the Markdown, if asked for); says what it left out. Raises UserError."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"report needs {error.name}: pip install 'pipellm[bench]'") from None
    from pipellm.report.html import page

    found, others = sections(folder)
    for name in others:
        print(f"pipellm: {folder / name} holds no results; left out", file=sys.stderr)
    page_path = page_path or folder / PAGE
    write_text(page_path, page(found))
    print(page_path)
    if markdown_path is not None:
        write_text(
            markdown_path,
            markdown.document(found, f"pipellm report {folder} --markdown {markdown_path}"),
        )
        print(markdown_path)
    return 0
