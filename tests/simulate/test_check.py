"""The comparison with what was measured reads what `pipellm bench` writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipellm.bench.cases import CASES
from pipellm.bench.contenders import CONTENDERS
from pipellm.bench.scaled import Scale
from pipellm.errors import UserError
from pipellm.output import Output
from pipellm.runtime.policy import Policy
from pipellm.simulate import check, here
from pipellm.simulate.host import HOSTS
from pipellm.simulate.machine import Machine

SCALE = Scale(seal_gbps=10.0, together_gbps=10.0)


@pytest.fixture(autouse=True)
def known_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "measured", lambda: HOSTS["server"])


def written(folder: Path, error: float) -> Path:
    """A file of a bench whose machine is what the simulator says, but for an error."""
    case = CASES["random"]
    profile = SCALE.profile(CONTENDERS["serial"])
    machine = Machine(profile, SCALE.host(HOSTS["server"]), Policy.named("serial"))
    throughput = machine.run(case.make(), 500, warm=case.warm).throughput / (1 + error)
    workload = case.make()
    row = {
        "workload": workload.name,
        "model": workload.model,
        "policy": "serial",
        "profile": "scaled",
        "throughput_spread": [throughput / 2, throughput],
        "units": 500,
        "host_gbps": {"libcrypto": HOSTS["server"].libcrypto},
    }
    file = folder / "bench.json"
    file.write_text(json.dumps({"machine": {"scaled": asdict(SCALE)}, "rows": [row]}))
    return file


@pytest.mark.parametrize(
    ("error", "status", "verdict"), [(0.0, 0, "ok"), (0.12, 0, "near"), (0.3, 1, "off")]
)
def test_the_verdict_follows_the_error(
    tmp_path: Path, error: float, status: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "checked.json"
    assert check.run(written(tmp_path, error), Output(results, "results")) == status
    (row,) = json.loads(results.read_text())["rows"]
    assert row["simulated"] / row["measured"] - 1 == pytest.approx(error, abs=0.01)
    line = next(line for line in capsys.readouterr().out.splitlines() if "scaled" in line)
    assert verdict in line.split("│")[-2]


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON", '{"machine": {}, "rows": [{}]}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"not what `pipellm bench --json` writes|is no JSON"):
        check.run(file)


def test_this_host_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    host = here.measured()
    assert host.workers >= 1
    assert host.seal >= 0.5 * host.libcrypto
