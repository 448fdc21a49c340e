"""A trace is named after the program, however that was started."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.trace.gather import model_of, name_of


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python", "python"),
        ("/usr/bin/python3.12 -", "python3.12"),
        ("python program.py --steps 3", "program"),
        ("python -u some/program.py", "program"),
        ("python -m flexgen.flex_opt --model x", "flexgen.flex_opt"),
        ("python -m", "python"),
        ("python -c pass program.py", "python"),
        ("python -W ignore -X utf8 program.py", "program"),
        ("python -W", "python"),
        ("bin/torchrun --nproc-per-node 2 train.py", "torchrun"),
    ],
)
def test_the_name_is_the_module_or_the_script_or_the_program(command: str, name: str) -> None:
    assert name_of(command.split()) == name


WORDS = st.sampled_from(["-", "-c", "-m", "-W", "-u", "--model", "--model=", "a.py", ""])


@given(st.sampled_from(["python", "sh"]), st.lists(WORDS))
def test_every_command_has_a_name_and_a_model(program: str, arguments: list[str]) -> None:
    assert isinstance(name_of([program, *arguments]), str)
    assert isinstance(model_of([program, *arguments]), str)
