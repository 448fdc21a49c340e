"""The page of results: every number marked, whatever the files say, as a browser shows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

REPOSITORY = Path(__file__).parents[2]
SPREAD = [0.9, 1.1]
BENCH = {
    "machine": {"processor": "<b>Some CPU</b>", "cores": 2, "engines_gbps": {"openssl": 5.5}},
    "rows": [
        {
            "workload": "flexgen",
            "model": "opt-30b",
            "label": "4 of 48 layers",
            "policy": policy,
            "profile": "scaled",
            "unit": "tokens/s",
            "limit": None,
            "cores": 0.5,
            "cores_spread": SPREAD,
            **dict.fromkeys(("throughput", "of_off", "of_ideal", "over_serial"), share),
            **dict.fromkeys(("throughput_spread", "of_off_spread", "of_ideal_spread"), SPREAD),
            "over_serial_spread": SPREAD,
            **dict.fromkeys(("hit_rate", "hit_rate_spread", "seal_gbps", "seal_gbps_spread")),
            "paced": "sealing, 5.5 GB/s" if policy == "serial" else None,
        }
        for policy, share in (("off", 1.0), ("serial", 0.31), ("pipelined", 0.62))
    ],
}
SIMULATED = {
    "host": {"cores": 48, "seal": 5.5},
    "rows": [
        {
            "system": "flexgen",
            "model": "opt-66b",
            "variant": "",
            "setting": "",
            "rate": None,
            "label": "simulated",
            "case": case,
            "profile": "h100",
            "throughput": 1 - drop,
            "unit": "tokens/s",
            "latency": None,
            "drop_vs_off": drop,
            "link_drop": 0.1,
            "software_drop": drop - 0.1,
            "link_gb_s": 40.0,
            "hit_rate": None,
        }
        for case, drop in (("off", 0.0), ("serial", 0.877), ("pipelined", 0.11))
    ],
}
CHECKED = {
    "host": {"cores": 2},
    "limit": 0.15,
    "rows": [
        {
            "workload": "random",
            "policy": "serial",
            "profile": "scaled",
            "measured": 100.0,
            "simulated": 93.0,
        }
    ],
}
DOCTOR = {
    "engine": "ipsec-mb",
    "seal_gbps": 9.0,
    "libcrypto_gbps": 4.5,
    "checks": [{"name": "cores", "status": "warn", "detail": "1 core", "remedy": "give it 2"}],
}


class Shown(HTMLParser):
    """What the page's tables say: each cell's value, and the mark that stands in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str | None]] = []
        self.references: list[str] = []
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.references += [named[name] or "" for name in ("src", "href") if name in named]
        if tag == "td":
            self.cells.append(("", None))
            self._inside = ""
        elif tag == "span" and self._inside is not None:
            self._inside = (named["class"] or "").split()[0]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "tr"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        text, mark = self.cells[-1] if self.cells else ("", None)
        if self._inside in ("value", "spread"):
            self.cells[-1] = ((text + data).strip(" "), mark)
        elif self._inside == "mark" and mark is None:
            self.cells[-1] = (text, data.strip() or None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = {"bench": BENCH, "simulated": SIMULATED, "checked": CHECKED, "doctor": DOCTOR}
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipellm", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_number_says_where_it_came_from(folder: Path) -> None:
    assert report(folder).returncode == 0
    cells = Shown((folder / "report.html").read_text()).cells
    assert ("31%", None) not in cells
    for text, mark in [
        ("31%90% to 110%", "modelled"),
        ("0.500.90 to 1.10", "measured"),
        ("87.7%", "simulated"),
        ("-7%", "simulated"),
        ("give it 2", None),
    ]:
        assert (text, mark) in cells
    assert {mark for text, mark in cells if text.endswith("%") or "GB/s" in text} <= {
        "measured",
        "modelled",
        "simulated",
    }


def test_the_page_needs_no_other_file_and_takes_text_as_text(folder: Path) -> None:
    assert report(folder).returncode == 0
    page = (folder / "report.html").read_text()
    assert all(reference.startswith("#") for reference in Shown(page).references)
    assert "<b>Some CPU</b>" not in page
    assert "&lt;b&gt;Some CPU&lt;/b&gt;" in page
    assert page.count("<svg") == 2


def test_the_same_numbers_as_markdown(folder: Path) -> None:
    assert report(folder, "--markdown", folder / "results.md").returncode == 0
    text = (folder / "results.md").read_text()
    assert "| opt-66b | serial | 0.123 tokens/s | 87.7% | 10.0% | 77.7% | 40.0 |  |" in text
    assert "*modelled, measured*" in text


def changed(document: dict[str, Any], **values: object) -> dict[str, Any]:
    return document | values


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no results"),
        ("{", "is no JSON"),
        (json.dumps({"h2d": 1}), "has no results"),
        (json.dumps(changed(DOCTOR, seal_gbps=None)), "make it again"),
    ],
)
def test_a_folder_without_good_results_is_refused_in_one_line(
    tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "file.json").write_text(content)
    done = report(tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


WIDTHS = (600, 1000, 1300, 1600)
PROBE = """
const seen = (element) => element.getClientRects().length > 0;
const name = (element) => element.textContent.trim();
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
onload = () => {
  document.title = JSON.stringify([...document.querySelectorAll('iframe')].map((frame) => {
    const page = frame.contentDocument, all = (what) => [...page.querySelectorAll(what)];
    const box = (element) => element.getBoundingClientRect();
    const plots = all('figure svg').map((svg) => {
      const texts = [...svg.querySelectorAll('text')], boxes = texts.map(box), edge = box(svg);
      return {
        width: edge.width,
        texts: texts.length,
        overlapping: texts.filter((_, i) => boxes.some((b, j) => j < i && overlap(boxes[i], b)))
            .map(name),
        cut: texts.filter((_, i) => boxes[i].left < edge.left - 1
            || boxes[i].right > edge.right + 1).map(name),
        height: Math.min(...boxes.map((b) => b.height)),
      };
    });
    const marks = all('.mark').filter(seen);
    return {
      width: frame.clientWidth,
      beyond: page.documentElement.scrollWidth - frame.clientWidth,
      tables: all('table').map((table) => box(table).width),
      cells: all('td, th').filter(seen).filter((cell) => cell.scrollWidth > cell.clientWidth + 1)
          .map(name),
      marks: marks.length,
      cut: marks.filter((mark) => mark.scrollWidth > mark.clientWidth + 1
          || !mark.classList.contains(name(mark))).map(name),
      plots: plots,
    };
  }));
};
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What a browser says of the page of docs/results, by the width of its window."""
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "report.html"
    assert report(REPOSITORY / "docs" / "results", "-o", page).returncode == 0
    text = escape(page.read_text(), quote=True)
    frames = "".join(
        f'<iframe srcdoc="{text}" style="width: {width}px; height: 900px; border: 0"></iframe>'
        for width in WIDTHS
    )
    probed = folder / "probed.html"
    probed.write_text(f"<title></title><body>{frames}<script>{PROBE}</script></body>")
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-quic", "--window-size=1700,900", f"--user-data-dir={folder / 'profile'}"),
            *("--virtual-time-budget=10000", "--dump-dom", probed.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    title = unescape(done.stdout.partition("<title>")[2].partition("</title>")[0])
    return dict(zip(WIDTHS, json.loads(title), strict=True))


every_width = pytest.mark.parametrize("width", WIDTHS)


@every_width
def test_no_table_is_wider_than_its_page(seen: dict[int, dict[str, Any]], width: int) -> None:
    found = seen[width]
    assert found["width"] == width
    assert found["beyond"] <= 0
    assert len(found["tables"]) == 8
    assert min(found["tables"]) > 400
    assert max(found["tables"]) <= width
    assert found["cells"] == [], "cells that hold more than is shown"


@every_width
def test_every_badge_shows_its_whole_word(seen: dict[int, dict[str, Any]], width: int) -> None:
    assert seen[width]["marks"] > 4
    assert seen[width]["cut"] == []


@every_width
def test_no_two_labels_overlap(seen: dict[int, dict[str, Any]], width: int) -> None:
    assert len(seen[width]["plots"]) == 7
    for plot in seen[width]["plots"]:
        assert plot["texts"] > 10
        assert (plot["overlapping"], plot["cut"]) == ([], [])
        assert plot["height"] > 7, "pixels: no label is too small to be read"
        assert plot["width"] > 500


def test_only_what_was_published_of_a_system_is_drawn_over_it(folder: Path) -> None:
    assert report(folder).returncode == 0
    page = (folder / "report.html").read_text()
    assert "published: OPT-66B with CC, 88.2%" in page
    assert "published: OPT-30B" not in page
