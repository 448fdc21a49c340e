"""`pipellm report`: the page, written where the results lie."""

from __future__ import annotations

from pathlib import Path

from pipellm.errors import UserError
from pipellm.output import Output
from pipellm.report import markdown
from pipellm.report.results import files, sections
from pipellm.terminal.output import complain

PAGE = "report.html"


def run(folder: Path, page_path: Path | None, markdown_path: Path | None) -> int:
    """Writes the page (and the Markdown, if asked for); says what it left out. Raises UserError."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"report needs {error.name}: pip install 'pipellm[bench]'") from None
    from pipellm.report.html import page

    page_output = Output(page_path or folder / PAGE, "the page")
    sources = files(folder)
    found, others = sections(folder)
    page_output.check(*sources)
    outputs = [(page_output, page(found))]
    if markdown_path is not None:
        markdown_output = Output(markdown_path, "the tables")
        markdown_output.check(page_output.path, *sources)
        command = f"pipellm report {folder} --markdown {markdown_path}"
        outputs.append((markdown_output, markdown.document(found, command)))
    for name in others:
        complain(f"{folder / name} holds no results; left out")
    for output, text in outputs:
        output.write_text(text)
        print(output.path)
    return 0
