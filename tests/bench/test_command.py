"""`pipellm bench`: what it writes, and how it complains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipellm import cli

SHORT = ["--seconds", "0.01", "--repeats", "1"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workload", "flexgem"], "unknown workload 'flexgem'"),
        (["--policy", "pipelind"], "did you mean 'pipelined'?"),
        (["--profile", "h200"], "unknown profile 'h200'"),
        (["--seconds", "0"], "--seconds 0: expected more than 0"),
        (["--repeats", "0"], "--repeats 0: expected 1 to"),
        (["--plot", "figure.gif"], "ends with .png, .svg or .pdf"),
        (["--json", "no/such/folder.json"], "cannot write the figures to no/such/folder.json"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_measured(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_figures_are_shown_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    arguments = ["--workload", "random", "--policy", "serial", "--policy", "pipelined", *SHORT]
    files = ["--json", str(figures), "--plot", str(plot)]
    assert cli.main(["bench", *arguments, *files]) == 0
    shown = capsys.readouterr().out
    assert "profile scaled: the paper's server, " in shown
    assert "random 2 MiB: replayed, profile scaled" in shown
    written = json.loads(figures.read_text())
    assert written["machine"]["cores"] >= 1
    assert [row["policy"] for row in written["rows"]] == ["serial", "pipelined"]
    serial, pipelined = written["rows"]
    assert written["machine"]["scaled"]["slowdown"] >= 1
    assert (serial["paced"], pipelined["paced"]) == ("sealing, 5.5 GB/s", None)
    assert serial["over_serial"] == 1
    assert serial["hit_rate"] is None
    assert pipelined["hit_rate"] == 0
    assert pipelined["throughput_spread"] == [pipelined["throughput"]] * 2
    assert plot.read_text().startswith("<?xml")
