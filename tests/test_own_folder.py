"""Nobody else can put a file where programs look for what PipeLLM left them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipellm.errors import UserError
from pipellm.own_folder import OwnFolder, temporary_folder

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user in that for temporary files. It is not there yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"pipellm-{os.geteuid()}"


def test_a_temporary_folder_lies_in_one_that_stays_and_is_this_users_own(shared: Path) -> None:
    first, second = temporary_folder(), temporary_folder()
    assert first.parent == second.parent == shared
    assert first != second
    for folder in (shared, first):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def refused(shared: Path) -> None:
    with pytest.raises(UserError) as error:
        temporary_folder()
    (line,) = str(error.value).splitlines()
    assert str(shared) in line
    assert "set TMPDIR" in line


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_refused(shared: Path, mode: int) -> None:
    shared.mkdir()
    shared.chmod(mode)
    refused(shared)
    assert list(shared.iterdir()) == []


@as_root
def test_a_folder_that_is_anothers_is_refused(shared: Path) -> None:
    shared.mkdir(0o700)
    os.chown(shared, NOBODY, NOBODY)
    refused(shared)


def test_a_link_to_a_folder_is_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    shared.symlink_to(tmp_path / "elsewhere")
    refused(shared)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_what_is_no_folder_is_refused(shared: Path, what: str) -> None:
    shared.write_text("") if what == "file" else shared.symlink_to("nowhere")
    refused(shared)


def test_a_file_is_kept_under_its_name_and_written_once(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path / "cache")
    file = folder.file("settings", b"content")
    first = file.stat()
    assert folder.file("settings", b"content") == file
    assert (file.read_bytes(), file.stat().st_ino) == (b"content", first.st_ino)
    assert stat.S_IMODE(first.st_mode) == 0o644
    assert list(folder.path.iterdir()) == [file]


@pytest.mark.parametrize("damage", ["changed", "writable", "link"])
def test_a_file_that_is_not_what_was_kept_is_written_anew(tmp_path: Path, damage: str) -> None:
    folder = OwnFolder(tmp_path / "cache")
    file = folder.file("settings", b"content")
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"content")
    if damage == "changed":
        file.write_bytes(b"other")
    elif damage == "writable":
        file.chmod(0o666)
    else:
        file.unlink()
        file.symlink_to(theirs)
    folder.file("settings", b"content")
    assert file.read_bytes() == theirs.read_bytes() == b"content"
    assert stat.S_ISREG(file.lstat().st_mode)
    assert stat.S_IMODE(file.lstat().st_mode) == 0o644


@as_root
def test_a_file_that_is_anothers_is_written_anew(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path / "cache")
    file = folder.file("settings", b"content")
    os.chown(file, NOBODY, NOBODY)
    folder.file("settings", b"content")
    assert file.stat().st_uid == 0
