"""The page: one HTML file that needs no other, for a browser or for print."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import jinja2

from pipellm import __version__
from pipellm.report.section import Mark, Section

LEGEND = {
    Mark.MEASURED: "taken on the machine named above the table",
    Mark.MODELLED: "real sealing and planning, in real time, beside a modelled link and GPU",
    Mark.SIMULATED: "came out of a simulation in virtual time",
    Mark.PUBLISHED: "quoted from the paper",
}


def page(sections: Sequence[Section]) -> str:
    """The whole document. Text from the files is escaped; only the plots are markup."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        resources.files(__package__).joinpath("page.html").read_text("utf-8")
    )
    return template.render(sections=sections, legend=LEGEND, version=__version__)
