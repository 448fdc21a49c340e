"""Settings are checked when they are made, and come through the environment as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipellm.errors import UserError
from pipellm.gpu.emulated.profile import names
from pipellm.gpu.emulated.tampering import LAST_MESSAGE, Tampering
from pipellm.runtime.policy import POLICIES
from pipellm.settings import MAX_GPUS, Settings
from pipellm.transfers import Direction

attacks = st.builds(Tampering, st.sampled_from(Direction), st.integers(1, LAST_MESSAGE))
sealed = [policy.name for policy in POLICIES.values() if policy.sealed]

settings = st.builds(
    Settings,
    gpus=st.integers(1, MAX_GPUS),
    profile=st.sampled_from(names()),
    policy=st.sampled_from(sorted(POLICIES)),
    stats=st.none() | st.text(st.characters(exclude_characters="\0"), min_size=1).map(Path),
) | st.builds(Settings, policy=st.sampled_from(sealed), tamper=attacks)


@given(settings)
def test_the_environment_carries_every_setting(made: Settings) -> None:
    assert Settings.from_environment(made.to_environment()) == made


def test_an_environment_without_a_launcher_says_nothing() -> None:
    assert Settings.from_environment({"PIPELLM_POLICY": "off"}) is None


def test_paths_do_not_depend_on_where_the_program_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").touch()
    monkeypatch.chdir(tmp_path)
    made = Settings.parse(profile="mine.toml", stats="stats.json")
    assert made.profile == str(tmp_path / "mine.toml")
    assert made.stats == tmp_path / "stats.json"


@pytest.mark.parametrize(
    "gpu", ["emulated:", "emulated:-1", "emulated:1.5", "emulated:17", "", ":1"]
)
def test_a_gpu_that_is_none(gpu: str) -> None:
    with pytest.raises(UserError):
        Settings.parse(gpu=gpu)


@pytest.mark.parametrize(
    "tamper", ["", "h2d", "h2d:", "h2d:0", f"h2d:{LAST_MESSAGE + 1}", "d2d:1", "d2h:-1", "d2h:1 "]
)
def test_an_attack_that_is_none(tamper: str) -> None:
    with pytest.raises(UserError):
        Settings.parse(tamper=tamper)


@pytest.mark.parametrize("policy", ["off", "serial"])
def test_only_off_leaves_copies_in_the_clear(policy: str) -> None:
    assert POLICIES[policy].sealed == (policy != "off")
