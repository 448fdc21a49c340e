"""JSON of anybody's: `report` and `simulate --check` read it, or say in one line what is wrong."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from pipellm.errors import UserError
from pipellm.report import markdown
from pipellm.report.html import page
from pipellm.report.results import sections
from pipellm.simulate import check
from tests.report.test_report import BENCH, CHECKED, DOCTOR, REPOSITORY, SIMULATED

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e</script><b>$\\frac{|"
odd = st.one_of(
    st.none(), st.booleans(), st.text(max_size=3), st.just(HOSTILE), st.floats(), st.integers(),
    st.sampled_from([[], {}, [[]], {"a": 1}, 1e300, -1e300, 1 << 70, "\ud800"]),
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its name or number there."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in list(items):
        yield value, name
        if isinstance(inner, dict | list):
            yield from places(inner)


@st.composite
def mutated(draw: st.DrawFn, documents: list[Any]) -> Any:
    document = json.loads(json.dumps(draw(st.sampled_from(documents))))
    for _ in range(draw(st.integers(1, 3))):
        holder, name = draw(st.sampled_from(list(places(document)) or [({}, "rows")]))
        if draw(st.booleans()) or name not in holder:
            holder[name] = draw(odd)
        else:
            del holder[name]
    return document


@settings(deadline=None, max_examples=100)
@given(mutated([BENCH, SIMULATED, CHECKED, DOCTOR]) | odd)
def test_a_page_is_made_of_it_or_it_is_refused(document: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "any.json").write_text(json.dumps(document))
        said = ""
        try:
            found, _ = sections(Path(folder))
        except UserError as error:
            said = str(error)
        else:
            made = page(found)
            assert "</script><b>" not in made
            made += markdown.document(found, "command")
            assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", made)
        assert "\n" not in said


MEASURED = json.loads((REPOSITORY / "docs" / "results" / "bench-scaled.json").read_text())
MEASURED["rows"] = MEASURED["rows"][:2]


@settings(deadline=None, max_examples=100)
@given(mutated([MEASURED]) | odd)
def test_what_is_checked_is_read_or_refused(document: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "any.json"
        file.write_text(json.dumps(document))
        said = ""
        try:
            for row in check._read(file):
                assert row.throughput > 0
                assert row.units > 0
        except UserError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 200_000, b"9" * 5000, b"[1e999]", b"NaN"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.json").write_bytes(content)
    with pytest.raises(UserError, match=r"any\.json is no JSON|has no results"):
        sections(tmp_path)


def test_a_file_of_any_size_takes_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "any.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="it has more than 32 MiB"):
        sections(tmp_path)
