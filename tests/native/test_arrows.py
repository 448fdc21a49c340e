"""Rooms of native/ include downwards only: which room may know which (docs/architecture.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"

BENEATH: dict[str, set[str]] = {
    "base": set(),
    "crypto": {"base"},
    "memory": {"base", "crypto"},
    "link": {"base", "crypto"},
    "emulator": {"base", "crypto", "memory", "link"},
    # Over the emulated GPU's open channel.
    "pipelined": {"base", "crypto", "memory", "link", "emulator"},
    # Over any driver's table.
    "recorder": {"base", "memory", "link"},
    "prefetch": {"base", "memory", "link"},
    "bench": {"base", "crypto", "memory", "link"},
    "interpreter": {"base", "link", "pipelined", "prefetch"},
    "python": {
        "base", "crypto", "memory", "link", "emulator", "pipelined", "recorder", "prefetch",
        "bench", "interpreter",
    },
    "testing": {"base", "crypto", "memory", "link", "emulator", "pipelined", "prefetch", "python"},
    # Shared objects of their own.
    "cudart": {"base", "link"},
    "provider": {"base"},
}  # fmt: skip
"""What each room may include of others; rooms that are loaded by themselves take little along."""


def rooms() -> list[str]:
    return sorted(folder.name for folder in NATIVE.iterdir() if folder.is_dir())


def includes(room: str) -> Iterator[tuple[Path, str]]:
    """Each file of the room with each path that it includes in quotes."""
    for file in sorted(NATIVE.joinpath(room).rglob("*")):
        if file.suffix in {".h", ".c", ".cpp"}:
            for included in re.findall(r'^\s*#\s*include\s*"(.*)"', file.read_text(), re.MULTILINE):
                yield file.relative_to(NATIVE), included


def test_the_table_names_every_room() -> None:
    assert set(rooms()) <= BENEATH.keys()


def test_the_table_has_no_circle() -> None:
    TopologicalSorter(BENEATH).prepare()  # raises CycleError


@pytest.mark.parametrize("room", sorted(BENEATH))
def test_a_room_includes_only_what_lies_beneath_it(room: str) -> None:
    upwards = [
        f"{file} includes {included}"
        for file, included in includes(room)
        if included.split("/")[0] not in BENEATH[room] | {room}
    ]
    assert upwards == []


@pytest.mark.parametrize("room", rooms())
def test_a_header_is_named_by_its_path_from_native(room: str) -> None:
    elsewhere = [
        f"{file} includes {included}"
        for file, included in includes(room)
        if ".." in included or not NATIVE.joinpath(included).is_file()
    ]
    assert elsewhere == []


def test_nothing_lies_outside_of_the_rooms() -> None:
    files = {file.name for file in NATIVE.iterdir() if file.is_file()}
    assert files == {"foreign_module.cmake"}
