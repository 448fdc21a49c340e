"""`bench`, `simulate` and `report`, stopped half way or on a full disk: no result is lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipellm import cli
from pipellm.runtime.policy import POLICIES

LAUNCH = (sys.executable, "-m", "pipellm")
BENCH = (
    *("bench", "--profile", "fast", "--seconds", "0.01", "--repeats", "1"),
    *("--policy", "serial", "--workload", "random"),
)
SIMULATE = ("simulate", "--profile", "h100", "--system", "peft", "--model", "opt-13b")


def run(*arguments: str | Path, largest: int = resource.RLIM_INFINITY) -> tuple[int, str, str]:
    """Status, standard output and error; no file may grow beyond `largest` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    done = subprocess.run(
        [*LAUNCH, *map(str, arguments)],
        # Python before 3.12.8 keeps half a compiled module where the file may not grow.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
    )
    return done.returncode, done.stdout, done.stderr


def interrupt(arguments: Sequence[str | Path], after: str) -> tuple[int, str, str]:
    """Ctrl-C, as a terminal sends it, once a line of standard error has `after` in it."""
    process = subprocess.Popen(
        [*LAUNCH, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if after in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        out, rest = process.communicate(timeout=120)
    finally:
        # It has a session of its own: nobody else would end it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, "".join(lines) + rest


def test_simulate_stopped_by_ctrl_c_keeps_what_it_has(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    command = ("simulate", "--profile", "h100", "--sweep", "cores=1,2,4,8,16,32,64,128")
    status, out, err = interrupt((*command, "--json", target), " 4/")
    assert status == -signal.SIGINT
    assert "Traceback" not in err
    document = json.loads(target.read_text())
    assert document["complete"] is False
    assert len(document["rows"]) >= 4
    assert {row["case"] for row in document["rows"]} == set(POLICIES)
    assert f"rows done; they are kept in {target}" in err
    assert "flexgen, profile h100, simulated" in out


def test_bench_stopped_by_ctrl_c_keeps_what_it_has_and_the_old_result(tmp_path: Path) -> None:
    target, partial = tmp_path / "rows.json", tmp_path / "rows.json.partial"
    target.write_text("old")
    command = (*BENCH, "--workload", "flexgen-opt-30b", "--json", target)
    status, out, err = interrupt(command, "flexgen")
    assert status == -signal.SIGINT
    assert "Traceback" not in err
    assert target.read_text() == "old"
    assert [row["workload"] for row in json.loads(partial.read_text())["rows"]] == ["random"]
    assert f"stopped with 1 of 2 workloads done; they are kept in {partial}" in err
    assert "random 2 MiB" in out


@pytest.mark.parametrize("command", [BENCH, SIMULATE], ids=["bench", "simulate"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_full_disk_leaves_the_old_result_and_the_new_one_is_shown(
    tmp_path: Path,
    command: tuple[str, ...],
    old: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "rows.json"
    if old is not None:
        target.write_text(old)
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main([*command, "--json", str(target)]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].endswith(f"to {target}: No space left on device")
    assert [path.read_text() for path in tmp_path.iterdir()] == ([] if old is None else [old])
    assert "GB/s" in shown.out


@pytest.mark.parametrize("old", [None, "old"])
def test_a_page_that_does_not_fit_on_the_disk_leaves_the_old_one(
    tmp_path: Path, old: str | None
) -> None:
    results, page = tmp_path / "results", tmp_path / "page.html"
    results.mkdir()
    assert run(*SIMULATE, "--json", results / "rows.json")[0] == 0
    if old is not None:
        page.write_text(old)
    status, _, err = run("report", results, "-o", page, largest=1000)
    assert (status, err) == (2, f"pipellm: cannot write the page to {page}: File too large\n")
    assert page.exists() == (old is not None)
    assert len(list(tmp_path.iterdir())) == 1 + (old is not None)


@pytest.mark.parametrize(
    "arguments",
    [
        (*BENCH, "--json", "."),
        (*BENCH, "--plot", "no/such/folder.png"),
        (*SIMULATE, "--json", "."),
        (*SIMULATE, "--json", "no/such/folder.json"),
        ("report", ".", "-o", "no/such/page.html"),
        ("report", ".", "--markdown", "."),
        ("trace", "show", "x.trace", "-o", "no/such/picture.png"),
    ],
)
def test_where_nothing_can_be_written_no_work_is_done(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert "cannot write" in err or "has no results" in err or "cannot read" in err
    assert len(err.splitlines()) == 1


def test_a_result_is_not_written_over_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*BENCH, "--json", "bench.json")[0] == 0
    before = Path("bench.json").read_text()
    for arguments in (
        ("simulate", "--check", "bench.json", "--json", "bench.json"),
        ("report", ".", "-o", "bench.json"),
        ("report", ".", "-o", "page.html", "--markdown", "page.html"),
        ("bench", "--json", "a.png", "--plot", "a.png"),
    ):
        status, _, err = run(*arguments)
        assert status == 2
        assert "this command uses that file already" in err
    assert Path("bench.json").read_text() == before
