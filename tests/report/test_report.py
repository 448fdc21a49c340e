"""The page of results: every number marked, whatever the files say, as a browser shows it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

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
        }
        for policy, share in (("off", 1.0), ("serial", 0.31), ("paper", 0.62))
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
        for case, drop in (("off", 0.0), ("serial", 0.877), ("paper", 0.11))
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
    """What the page's tables say: the text of each cell, and the mark that stands in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str | None]] = []
        self.references: list[str] = []
        self._inside = self._mark = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.references += [named[name] or "" for name in ("src", "href") if name in named]
        if tag == "td":
            self._inside = True
            self.cells.append(("", None))
        elif tag == "span" and self._inside:
            self._mark = True
            self.cells[-1] = (self.cells[-1][0], named.get("title"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = False
        elif tag == "span":
            self._mark = False

    def handle_data(self, data: str) -> None:
        if self._inside and not self._mark:
            text, mark = self.cells[-1]
            self.cells[-1] = (text + data, mark)


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
        ("31% (90% to 110%)", "modelled"),
        ("0.50 (0.90 to 1.10)", "measured"),
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


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_the_plots_and_tables(folder: Path) -> None:
    assert report(folder).returncode == 0
    # The browser itself says how large everything came out, and whether it has to be scrolled to.
    page = folder / "report.html"
    probe = """<script>onload = () => {
      const size = (element) => Math.round(element.getBoundingClientRect().width);
      document.title = JSON.stringify({
        plots: [...document.querySelectorAll('figure svg')].map(size),
        tables: [...document.querySelectorAll('table')].map(size),
        beyond: document.documentElement.scrollWidth - innerWidth,
        fonts: [...document.querySelectorAll('figure text')].length,
      });
    }</script></body>"""
    (folder / "probed.html").write_text(page.read_text().replace("</body>", probe))
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-quic", "--window-size=1280,900", f"--user-data-dir={folder / 'profile'}"),
            *("--virtual-time-budget=5000", "--dump-dom", (folder / "probed.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    seen = json.loads(title)
    assert len(seen["plots"]) == 2
    assert len(seen["tables"]) == 4
    assert min(seen["plots"] + seen["tables"]) > 200
    assert seen["beyond"] <= 0
    assert seen["fonts"] > 10
