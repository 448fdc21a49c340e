"""Tables that lose nothing on a narrow terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text


def show(screen: Console, table: Table) -> None:
    """Prints a table of text, with every word of it whole: with lines between the columns if they
    have room, else with a space, else each row as a list of names and values."""
    count = len(table.columns)
    for compact, between in ((False, 3 * count + 1), (True, count - 1)):
        room = screen.width - between
        if sum(map(_narrowest, table.columns)) > room:
            continue
        if compact:
            table.box, table.padding = box.SIMPLE_HEAD, (0, 0)
            table.show_edge = table.pad_edge = False
        _distribute(room, table.columns)
        screen.print(table)
        return
    _list(screen, table)


def _distribute(room: int, columns: list[Column]) -> None:
    """Each column gets what its longest word needs, then who lacks most gets more."""
    widths = [_narrowest(column) for column in columns]
    lacking = [_widest(column) - width for column, width in zip(columns, widths, strict=True)]
    for _ in range(room - sum(widths)):
        neediest = max(range(len(columns)), key=lacking.__getitem__)
        if lacking[neediest] <= 0:
            break
        widths[neediest] += 1
        lacking[neediest] -= 1
    for column, width in zip(columns, widths, strict=True):
        column.width = width


def _list(screen: Console, table: Table) -> None:
    if table.title is not None:
        screen.print(Text(str(table.title), style="bold"))
    names = [str(column.header) for column in table.columns]
    widest = max(map(len, names))
    for row in zip(*(list(column.cells) for column in table.columns), strict=True):
        screen.print()
        for name, cell in zip(names, row, strict=True):
            if str(cell):
                screen.print(Text(f"{name:{widest}}  {cell}"))
    screen.print()


def _narrowest(column: Column) -> int:
    return max((len(word) for text in _texts(column) for word in text.split()), default=1)


def _widest(column: Column) -> int:
    return max((len(line) for text in _texts(column) for line in text.splitlines()), default=1)


def _texts(column: Column) -> list[str]:
    return [str(column.header), *map(str, column.cells)]
