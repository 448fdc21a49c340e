"""What the pages tell a reader to type works as it stands there."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipellm.attach.libcrypto import MODULE
from tests.docs.pages import PAGES, REPOSITORY, blocks, commands
from tests.docs.stand_ins import NOT_RUN, SHORTER, STATUS, Rule, furnish

EVERY_COMMAND = [command for page in PAGES for command in commands(page)]


def first(rules: tuple[Rule, ...], command: str) -> Rule | None:
    return next((rule for rule in rules if rule.matches(command)), None)


def as_run(command: str) -> str:
    for replacement in SHORTER:
        command = replacement.apply(command)
    return command


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a command as a reader's shell would, in a folder with what the pages name."""
    furnish(tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(
    page: Path,
    run: Callable[[str], subprocess.CompletedProcess[str]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    (tmp_path / "here.cnf").write_text(configuration())
    for command in commands(page):
        if (rule := first(NOT_RUN, command)) is not None:
            record_property("command not run", f"{page.name}: {command} ({rule.reason})")
            continue
        result = run(as_run(command))
        allowed = {0} if first(STATUS, command) is None else {0, 1}
        assert result.returncode in allowed, (
            f"{command}\nran as: {as_run(command)}\n{result.stdout}\n{result.stderr}"
        )
        record_property("command run", f"{page.name}: {command}")


def configuration() -> str:
    """The OpenSSL configuration that docs/provider.md shows, with the provider's place."""
    (shown,) = (b.text for b in blocks(REPOSITORY / "docs/provider.md") if b.language == "ini")
    return re.sub(r"module = .*", f"module = {MODULE}", shown)


def test_the_openssl_configuration_on_the_page_puts_the_provider_first(
    run: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "here.cnf").write_text(configuration())
    listed = run("OPENSSL_CONF=here.cnf openssl list -providers").stdout
    assert re.findall(r"^  (\w+)$", listed, re.MULTILINE) == ["default", "pipellm"]
    assert listed.count("status: active") == 2
    from pipellm.attach.libcrypto import _PROBE

    (tmp_path / "probe.py").write_text(_PROBE)
    assert run("OPENSSL_CONF=here.cnf python probe.py").stdout == "pipellm\n"


def test_openssl_speed_on_the_page_measures_the_provider(
    run: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    (command,) = (command for command in EVERY_COMMAND if command.startswith("openssl speed"))
    without = re.sub(r"-provider-path \S+ -provider pipellm", "", as_run(command))
    assert without != as_run(command)
    assert run(without).returncode != 0  # it would be somebody else's AES-GCM that is measured


def test_what_is_no_command_says_what_it_is() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                ast.parse(block.text)
            elif block.language == "json":
                assert json.loads(block.text)
            else:
                assert block.language in ("sh", "ini", "text"), block


@pytest.mark.parametrize("rule", [*NOT_RUN, *STATUS, *SHORTER], ids=lambda rule: rule.pattern)
def test_no_rule_is_for_a_command_that_is_gone(rule: Rule) -> None:
    assert any(rule.matches(command) for command in EVERY_COMMAND)
