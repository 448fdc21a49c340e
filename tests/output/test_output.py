"""A file that a user asked for is there whole, or what was there before is."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pipellm.errors import UserError
from pipellm.output import Growing, Output


def test_it_has_the_rights_of_any_new_file_and_keeps_those_of_an_old_one(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    (tmp_path / "other").touch()
    old.touch(mode=0o600)
    for path in (new, old):
        Output(path, "the figures").write_text("written")
    assert new.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, real = tmp_path / "link", tmp_path / "folder" / "real"
    link.symlink_to(real)
    Output(link, "the figures").check()
    Output(link, "the figures").write_text("written")
    assert link.is_symlink()
    assert real.read_text() == "written"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "figures.json"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    class Full:
        __init__ = __exit__ = lambda *_: None
        fileno = flush = lambda _: None

        def __enter__(self) -> Full:
            return self

        def write(self, _: bytes) -> None:
            full()

    with monkeypatch.context() as patch:
        match call:
            case "write":
                patch.setattr("builtins.open", Full)
            case "fsync":
                patch.setattr(os, "fsync", full)
            case "replace":
                patch.setattr(Path, "replace", full)
        with pytest.raises(UserError) as raised:
            Output(target, "the figures").write(b"new")
    said = str(raised.value)
    assert said.startswith(f"cannot write the figures to {target}: No space left on device")
    assert target.read_text() == "old"
    left = [path for path in tmp_path.iterdir() if path != target]
    if call == "replace":  # what was written whole is not thrown away
        assert [path.read_bytes() for path in left] == [b"new"]
        assert str(left[0]) in said
    else:
        assert left == []


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "link").symlink_to(source)
    for path, reason in (
        (tmp_path, "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "no" / "folder", "No such file or directory"),
        (source / "below", "Not a directory"),
        (loop, "Too many levels of symbolic links"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / "link", "this command uses that file already"),
    ):
        with pytest.raises(UserError, match=reason):
            Output(path, "the figures").check(source)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_written_protected_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "figures.json"
    target.touch(mode=0o400)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(UserError, match="Permission denied"):
        Output(target, "the figures").check()


class Stopped(BaseException):
    """As Ctrl-C."""


def grow(target: Path, steps: int, *, stopped: bool = False) -> list[object]:
    """Grows a document of five rows; what lies at `target` after each step."""
    rows: list[int] = []
    seen: list[object] = []
    output = Output(target, "the figures")
    with Growing(output, lambda: {"rows": rows}, "rows", 5) as growing:
        for number in range(steps):
            rows.append(number)
            growing.add()
            seen.append(json.loads(target.read_text()))
        if stopped:
            raise Stopped
    return seen


def test_rows_are_saved_as_they_come(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    seen = grow(target, 2)
    assert seen == [{"complete": False, "rows": [0]}, {"complete": False, "rows": [0, 1]}]
    assert json.loads(target.read_text()) == {"rows": [0, 1]}


def test_part_of_a_new_result_does_not_replace_an_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    grow(target, 5)
    partial = tmp_path / "figures.json.partial"
    with pytest.raises(Stopped):
        grow(target, 2, stopped=True)
    assert json.loads(target.read_text()) == {"rows": [0, 1, 2, 3, 4]}
    assert json.loads(partial.read_text()) == {"complete": False, "rows": [0, 1]}
    said = f"pipellm: stopped with 2 of 5 rows done; they are kept in {partial}\n"
    assert capsys.readouterr().err == said
    grow(target, 1)
    assert json.loads(target.read_text()) == {"rows": [0]}
    assert not partial.exists()


def test_a_full_disk_is_said_once_and_does_not_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rows: list[int] = []
    target = tmp_path / "figures.json"
    with Growing(Output(target, "the figures"), lambda: {"rows": rows}, "rows", 3) as growing:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for number in range(2):
                rows.append(number)
                growing.add()
        rows.append(2)
        growing.add()
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert json.loads(target.read_text()) == {"rows": [0, 1, 2]}
