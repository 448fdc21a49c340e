"""docs/statistics.md has every field that `--stats` writes, and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.pages import REPOSITORY
from tests.docs.stand_ins import furnish

SECTIONS = {
    "Each direction": ("h2d",),
    "Speculation": ("speculation",),
    "Prefetching": ("prefetching",),
    "The provider": ("provider",),
    "Each process": ("processes", 0),
}


def documented() -> dict[str, set[str]]:
    """The names in the first column of each section's table."""
    page = (REPOSITORY / "docs/statistics.md").read_text()
    fields: dict[str, set[str]] = {}
    for section in page.split("\n## "):
        title = section.partition("\n")[0]
        rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
        fields[title] = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    return fields


def written(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The statistics of a run with these options."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pipellm", "run", *options, "--stats", "stats.json"),
            *("--", sys.executable, "program.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=600,
    )
    report: dict[str, Any] = json.loads((tmp_path / "stats.json").read_text())
    return report


def test_the_page_and_the_file_have_the_same_fields(tmp_path: Path) -> None:
    furnish(tmp_path)
    report = written(tmp_path, "--policy", "pipelined", "--attach", "libcrypto")
    prefetched = written(tmp_path, "--policy", "prefetch")
    assert prefetched["provider"], "the provider serves it without being asked"
    report["prefetching"] = prefetched["prefetching"]
    report["processes"][0]["prefetching"] = prefetched["processes"][0]["prefetching"]
    fields = documented()
    for title, path in SECTIONS.items():
        part: Any = report
        for step in path:
            part = part[step]
        assert set(part) == fields.pop(title), title
    (rest,) = fields.values()
    assert set(report) == rest
    assert set(report["h2d"]) == set(report["d2h"])
    named = re.search(r"`by_pattern` \|(.+)", (REPOSITORY / "docs/statistics.md").read_text())
    assert named is not None
    for pattern in report["speculation"]["by_pattern"]:
        assert f"`{pattern}`" in named[1]
