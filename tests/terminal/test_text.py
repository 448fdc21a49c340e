"""Text of others does nothing to a terminal, and is one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipellm.terminal.text import plain, plain_all


@given(st.text(st.characters()))
def test_what_is_plain_can_be_printed(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    plain(text).encode()


@given(st.text())
def test_what_can_be_printed_stays(text: str) -> None:
    if text.isprintable():
        assert plain(text) == text


def test_keys_and_values_of_json_are_made_plain() -> None:
    assert plain_all({"\x1b[2J": ["a\nb", 1, None]}) == {"\\x1b[2J": ["a\\nb", 1, None]}
