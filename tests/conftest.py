"""Which tests start first where several processes run them.

`make test` runs tests in one process more than there are cores (pytest-xdist), those of one file in
one process.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.docs.summary",)

# Tests of these look at the same few runs of a whole program: those of a run are in one file.
SYSTEMS = ("vllm", "peft", "flexgen")

# Tests run side by side: threads of each would only contend. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# For the same reason, how long an example takes says nothing of it.
settings.register_profile(
    "beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("beside others")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for system in SYSTEMS:
            if item.get_closest_marker(system):
                item.add_marker(pytest.mark.long)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """The long ones first, so that no process is at one of them when all others have ended."""
    if item.path.name == "test_vllm_server.py":
        return len(SYSTEMS)  # finds compiled what test_vllm.py had to compile
    for turn, system in enumerate(SYSTEMS):
        if item.get_closest_marker(system):
            return turn
    return len(SYSTEMS) + 1 + (item.get_closest_marker("long") is None)
