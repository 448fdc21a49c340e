"""accelerate's own tests on the emulated GPU, as on a machine with one: the same under each policy.

    python -m tests.systems.accelerate_suite

Takes the tests from the source distribution of the accelerate that is installed, by pip, into a
temporary folder, and runs them offline (what wants a model from the network fails). They need
`parameterized`. Prints each failure and the counts; exit status 1 if a test ends otherwise under
one policy than under another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from pipellm.gpu.emulated.profile import PROFILES

OTHER_MACHINES = ("tpu", "sagemaker", "fp8", "quantization")
"""Tests of other hardware and services."""
OTHER_SUBJECTS = ("examples", "tracking", "cli", "launch", "compile")
"""Tests of accelerate's examples, of trackers and of its command line, and of torch.compile."""


@dataclass(frozen=True)
class Outcome:
    word: str
    """passed, skipped, failed or error."""
    message: str
    """The first line of what it failed with."""


Outcomes = Mapping[str, Outcome]
"""By the test's name."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.systems.accelerate_suite")
    parser.add_argument("tests", nargs="*", metavar="NAME", help="of test_NAME.py, these only")
    parser.add_argument("--policies", nargs="+", default=["off", "pipelined"], metavar="POLICY")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all outcomes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        source = unpack(Path(scratch))
        files = chosen(source, options.tests)
        runs = {policy: run(source, files, policy) for policy in options.policies}
    if options.json is not None:
        words = {
            policy: {test: outcome.word for test, outcome in outcomes.items()}
            for policy, outcomes in runs.items()
        }
        options.json.write_text(json.dumps(words, indent=1))
    return report(runs)


def unpack(folder: Path) -> Path:
    """Where the source distribution lies. Raises CalledProcessError where pip finds none."""
    name = f"accelerate=={version('accelerate')}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-binary", ":all:", "-d", folder, name], check=True)
    (archive,) = folder.glob("accelerate-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def chosen(source: Path, names: Sequence[str]) -> list[str]:
    there = sorted(path.stem.removeprefix("test_") for path in source.glob("tests/test_*.py"))
    left_out = () if names else OTHER_MACHINES + OTHER_SUBJECTS
    return [f"tests/test_{name}.py" for name in (names or there) if name not in left_out]


def run(source: Path, files: Sequence[str], policy: str) -> Outcomes:
    results = source / f"{policy}.xml"
    launcher = [sys.executable, "-m", "pipellm", "run", "--policy", policy]
    launcher += ["--profile", str(small_profile(source))]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "-rN"]
    print(f"accelerate's tests under {policy}", file=sys.stderr, flush=True)
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [*launcher, "--", *pytest, f"--junitxml={results}", *files],
        cwd=source,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PATH": beside_python},
        stdout=sys.stderr,
        check=False,
    )
    return read(results)


def small_profile(folder: Path) -> Path:
    """`fast`, with little memory: some tests fill the device's, which is the host's here."""
    profile = folder / "small.toml"
    profile.write_text((PROFILES / "fast.toml").read_text().replace("gib = 16", "gib = 1"))
    return profile


def read(results: Path) -> Outcomes:
    outcomes = {}
    for case in ElementTree.parse(results).iter("testcase"):
        word, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                word = {"failure": "failed"}.get(child.tag, child.tag)
                message = (child.get("message") or "").strip().split("\n")[0]
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = Outcome(word, message)
    return outcomes


def report(runs: Mapping[str, Outcomes]) -> int:
    every = sorted({test for outcomes in runs.values() for test in outcomes})
    missing = Outcome("missing", "")
    different = 0
    for test in every:
        each = {policy: outcomes.get(test, missing) for policy, outcomes in runs.items()}
        words = {outcome.word for outcome in each.values()}
        different += len(words) > 1
        if words & {"failed", "error", "missing"}:
            where = ", ".join(f"{policy} {outcome.word}" for policy, outcome in each.items())
            message = next((outcome.message for outcome in each.values() if outcome.message), "")
            print(f"{test}: {where}: {message:.120}")
    for policy, outcomes in runs.items():
        counts = Counter(outcome.word for outcome in outcomes.values())
        print(f"{policy}: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    print(f"{len(every)} tests, {different} of them not the same under each policy")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
