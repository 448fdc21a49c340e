"""Programs with the emulated GPU under them, each a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.systems.conftest import Launcher


@pytest.fixture
def launch(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)
