"""A recording as words, as a picture, and replayed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipellm.trace.picture import COLOURS
from pipellm.transfers import Direction
from tests.trace.record import DATA

PEFT = DATA / "peft.trace"


def trace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipellm", "trace", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "140"},
    )


def test_in_words() -> None:
    done = trace("show", PEFT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples.peft.finetune" in done.stdout
    assert "recorded under policy off, profile h100; ended with status 0" in done.stdout
    assert "128 KiB and more" in done.stdout
    assert "TFLOP" in done.stdout


def test_in_numbers_by_predictor() -> None:
    done = trace("stats", PEFT)
    assert (done.returncode, done.stderr) == (0, "")
    for predictor in ("repetitive", "fifo", "lifo", "together"):
        assert predictor in done.stdout


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_as_a_picture(tmp_path: Path, name: str, magic: bytes) -> None:
    picture = tmp_path / name
    done = trace("show", PEFT, "-o", picture)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    content = picture.read_bytes()
    assert content.startswith(magic)
    if picture.suffix == ".svg":
        for direction in Direction:
            assert COLOURS[direction].encode() in content


def test_a_picture_of_no_known_kind(tmp_path: Path) -> None:
    done = trace("show", PEFT, "-o", tmp_path / "a.txt")
    assert done.returncode == 2
    assert "the name of a picture ends with .png, .svg or .pdf" in done.stderr


def test_replayed_with_every_byte_checked() -> None:
    options = ("--profile", "fast", "--no-idle", "--policy", "pipelined")
    done = trace("replay", PEFT, *options)
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("│ pipelined"))
    hits = row.split("│")[6].strip()
    assert float(hits.removesuffix("%")) > 50, "most of the swap-ins had been sealed ahead"


def test_simulated() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipellm", "simulate", "--trace", str(PEFT), "--profile", "h100"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "examples.peft.finetune, profile h100, simulated" in done.stdout
