"""However narrow the terminal, every word of a table is whole."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from pipellm.terminal.table import show
from tests.trace.record import DATA

words = st.from_regex(r"\A[a-z0-9%./]{1,12}\Z")
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)


@given(st.lists(texts, min_size=1, max_size=9), st.data(), st.integers(30, 130))
def test_every_word_is_whole(headers: list[str], data: st.DataObject, width: int) -> None:
    row = st.lists(texts, min_size=len(headers), max_size=len(headers))
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    table = Table(*headers)
    for cells in rows:
        table.add_row(*cells)
    screen = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    show(screen, table)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    assert "…" not in shown
    found = set(re.split(r"[\s│┃]+", shown))
    assert {word for text in (*headers, *chain(*rows)) for word in text.split()} <= found


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        (["trace", "show", str(DATA / "peft.trace")], "direction blocking pinned process recorded"),
        (["trace", "stats", str(DATA / "vllm.trace")], "predictor another among silent"),
        (
            ["simulate", "--profile", "h100", "--system", "peft", "--model", "opt-13b"],
            "model case throughput lost link software GB/s rate",
        ),
        (
            ["bench", "--workload", "random", "--seconds", "0.01", "--repeats", "1"],
            "policy swaps/s ideal serial hits GB/s cores",
        ),
    ],
    ids=["trace show", "trace stats", "simulate", "bench"],
)
def test_commands_keep_their_headers_whole_at_60_columns(
    arguments: list[str], headers: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipellm", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "60"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert "…" not in done.stdout
    assert set(headers.split()) <= set(re.split(r"[\s│┃]+", done.stdout))
