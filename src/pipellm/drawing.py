"""Drawing with matplotlib: whether it is there, and quietly."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipellm.errors import UserError
from pipellm.output import Output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check(path: Path, *others: Path | None) -> None:
    """Raises UserError if no picture can be drawn there, or if that is one of `others`, which the
    same command reads or writes."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot draw {path}: the name of a picture ends with .png, .svg or .pdf")
    require("a picture")
    _output(path).check(*others)


def require(what: str) -> None:
    """Raises UserError if matplotlib is missing, which `what` needs."""
    with quietly():
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise UserError(
                f"{what} needs matplotlib, which is not installed: pip install 'pipellm[bench]'"
            ) from None


def write(figure: Figure, path: Path) -> None:
    """Writes the figure. Raises UserError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    with quietly():
        FigureCanvasAgg(figure)
        figure.savefig(content, format=path.suffix.lower().removeprefix("."), dpi=150)
    _output(path).write(content.getvalue())


@contextmanager
def quietly() -> Iterator[None]:
    """Without what matplotlib has to say to its programmer: of missing glyphs, of its caches."""
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _output(path: Path) -> Output:
    return Output(path, "the picture")
