"""Every option of every sub-command, with what does not belong there: one line, never a traceback.

The options are taken from the parser itself, so that none can be forgotten. The work is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest

from pipellm import cli
from pipellm.attach import launch
from pipellm.bench import compare, figures, scaled
from pipellm.simulate import check, command, here
from pipellm.simulate.host import HOSTS
from pipellm.simulate.point import Point, Row

WORDS = {
    "nothing": "",
    "word": "nonsense",
    "escape": "\x1b]0;owned\x07\x1b[2J",
    "markup": "[/red][bold]",
    "long": "n" * 5000,
    "long profile": "n" * 5000 + ".toml",
    "not a number": "nan",
    "endless": "inf",
    "negative": "-1",
    "zero": "0",
    "huge": "9" * 5000,
    "assigned nan": "cores=nan",
    "assigned inf": "cores=inf",
    "assigned nothing": "cores=",
    "range": "cores=1..99999999999999999999",
    "missing": "no/such/file.json",
    "missing profile": "no/such/profile.toml",
    "missing picture": "no/such/picture.png",
}
FILES = {
    "empty.json": b"",
    "binary.png": bytes(range(256)) * 8,
    "deep.json": b"[" * 200_000,
    "other.json": json.dumps({"rows": [{"h2d": 1}], "machine": []}).encode(),
    "rows.json": json.dumps({"rows": 5, "machine": {}}).encode(),
    "list.json": b"[1, 2]",
    "numbers.json": b'{"machine": {}, "rows": [{"workload": 1e999}]}',
    "bomb.trace": gzip.compress(b"\0" * 50_000_000),
    "deep.trace": gzip.compress(b"[" * 1_000_000),
    "deep.toml": b"a = " + b"[" * 5000,
    "digits.toml": b"memory_gib = " + b"9" * 5000,
    "escape.toml": b'"\\u001b[2J" = 1',
    "program": b"#!/no/such/interpreter\n",
}


def options() -> Iterator[tuple[list[str], list[str]]]:
    """Each way to give one value: what comes before it, and what has to come after."""

    def walk(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[object]:
        positionals: list[argparse.Action] = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    yield from walk(inner, [*words, name])
            elif not action.option_strings:
                positionals.append(action)
        needed = [
            *(["-o", "nowhere.trace"] if words[-1:] == ["record"] else []),
            *("x" for _ in positionals),
        ]
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                yield [*words, action.option_strings[-1]], needed
        for _ in positionals:
            yield [*words, *needed[:-1]], []

    yield from walk(cli.parser(), [])  # type: ignore[misc]


OPTIONS = list(options())


def nothing(points: Sequence[Point]) -> Generator[Row]:
    yield from ()


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled, "measured", lambda: scaled.Scale(5.0, 5.0))
    monkeypatch.setattr(compare.Plan, "run", lambda *_: None)
    monkeypatch.setattr(figures, "plot", lambda *_: None)
    monkeypatch.setattr(command, "locally", nothing)
    monkeypatch.setattr(check, "_bench", lambda: [])
    monkeypatch.setattr(here, "measured", lambda: HOSTS["server"])
    monkeypatch.setattr(launch, "_wait", lambda process: process.wait())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "program").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_parser_was_walked_through() -> None:
    commands = {tuple(word for word in before if word.isalpha()) for before, _ in OPTIONS}
    assert ("trace", "replay") in commands
    assert {"bench", "simulate", "run", "report"} <= {command[0] for command in commands}
    assert len(OPTIONS) > 30


@pytest.mark.parametrize(("before", "after"), OPTIONS, ids=[" ".join(o[0]) for o in OPTIONS])
def test_what_does_not_belong_there_is_told_in_one_line(
    before: Sequence[str],
    after: Sequence[str],
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if before[-1] == "--ray":
        values = ["nonsense", "127.0.0.1:1", ""]  # some addresses are of clusters that may exist
    else:
        values = [*WORDS.values(), *FILES, "folder"]
    for value in values:
        with contextlib.suppress(SystemExit):
            status = cli.main([*before, value, *after])
            shown = capfd.readouterr()
            case = f"{' '.join(before)} {value[:60]!r}"
            assert "Traceback" not in shown.err, case
            assert not any(ord(c) < 32 for c in shown.err.replace("\n", "")), case
            if status == 2:
                assert shown.err.startswith("pipellm: "), case
                assert len(shown.err.splitlines()) == 1, case
                assert len(shown.err) < 2100, case
