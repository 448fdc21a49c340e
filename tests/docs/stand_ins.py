"""What the pages' commands run on here, and which of them do not run here, with the reason."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pipellm.attach.libcrypto import MODULE
from tests.docs.pages import REPOSITORY

COPYING = """\
import sys, torch
device = "cuda" if torch.cuda.is_available() else "cpu"
weights = [torch.ones(1 << 18) for _ in range(4)]
for step in range(6):
    on_device = [weight.to(device) for weight in weights]
print(sum(float(weight.sum()) for weight in on_device), *sys.argv[1:])
"""
PROGRAMS = {
    "program.py": COPYING,
    "flexgen/__init__.py": "",
    "flexgen/flex_opt.py": COPYING,  # tests/systems runs the real one
    "your_program.py": "print('done')",
    "module.py": "print('done')",
    "x.py": "print('done')",
    "program": "#!/bin/sh\nexec openssl version\n",
}
"""They stand for the reader's own."""

LINKS = (
    *("examples", "native", "scripts", "tests"),
    *("CMakeLists.txt", "Makefile", "README.md", "pyproject.toml"),
)


def furnish(folder: Path) -> None:
    """Puts what the commands name into `folder`, where they run."""
    for name, source in PROGRAMS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(source)
        (folder / name).chmod(0o755)
    for name in LINKS:
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv").symlink_to(sys.prefix)
    # Copied, because commands may write there.
    shutil.copytree(REPOSITORY / "docs", folder / "docs")
    shutil.copytree(REPOSITORY / "docs" / "results", folder / "DIR")


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about the commands that match `pattern`."""

    pattern: str
    reason: str

    def matches(self, command: str) -> bool:
        return re.search(self.pattern, command) is not None


@dataclass(frozen=True, slots=True)
class Replacement(Rule):
    """Runs `by` (as for re.sub) in the stead of what `pattern` matches."""

    by: str

    def apply(self, command: str) -> str:
        return re.sub(self.pattern, self.by, command)


SHORTER = (
    Replacement(r"^make (.+)", "it takes minutes: make says what it would do", r"make -n \1"),
    Replacement(
        r"(python -m pytest|^pytest) -m",
        "those tests run by themselves",
        r"\1 --co -q tests/systems -m",
    ),
    Replacement(r"pytest (?=tests)", "those tests run by themselves", "pytest --co -q "),
    Replacement(r" 1000000 2$", "a smaller number of sequences", " 100 2"),
    Replacement(r" /tmp/", "a folder of this test's own", " tmp/"),
    Replacement(r" \.\.\.$", "options that are left out on the page", ""),
    Replacement(r"h2d:[0-9]+", "a message that a small program sends", "h2d:3"),
    Replacement(
        r"^pipellm bench(|.*--workload flexgen.*)$",
        "an hour, some minutes: the arguments are read",
        r"pipellm bench\1 -h",
    ),
    Replacement(
        r"^pipellm bench --seconds 10 --repeats 5",
        "an hour",
        "pipellm bench --workload random --policy serial --seconds 0.01 --repeats 1",
    ),
    Replacement(
        r"^pipellm bench --trace",
        "some minutes less",
        "pipellm bench --policy off --seconds 0.01 --repeats 1 --trace",
    ),
    Replacement(r"OPENSSL_CONF=\.\.\.", "the configuration on that page", "OPENSSL_CONF=here.cnf"),
    Replacement(r"FOLDER", "where the provider is", str(MODULE.parent)),
    Replacement(r"^openssl speed", "3 s for each otherwise", "openssl speed -seconds 1"),
    Replacement(
        r"^\S*python -m (pipellm\.bench\.\w+|examples\.peft\.hits).*",
        "minutes of measuring: it is imported",
        r'python -c "import \1"',
    ),
    Replacement(
        r"^python -m (examples\.\S+)(.*)", "minutes: its arguments are read", r"python -m \1\2 -h"
    ),
    Replacement(
        r"^pipellm simulate(?! --trace)(.*)",
        "minutes: its arguments are read",
        r"pipellm simulate\1 -h",
    ),
)
"""Applied one after the other."""

NOT_RUN = (
    Rule(r"nvidia|gpu_tools|conf-compute|doctor\.copying|libtorch_cuda", "wants an NVIDIA GPU"),
    Rule(r"apt-get|^pip install|venv pipellm", "installs packages"),
    Rule(r"--attach libcrypto,cudart", "wants libcudart; tests/preload runs it with a stub"),
    Rule(r"--ray ", "wants a Ray cluster; tests/simulate starts one"),
    Rule(r"vllm", "minutes; tests/systems/test_vllm_server.py runs it"),
    Rule(r"examples\.peft\.finetune", "minutes; tests/systems/test_peft.py runs it"),
    Rule(r"cmake|/tmp/(provider|preload)", "half a minute of compiling; those tests build it"),
    Rule(r"^\. \.venv", "the tests' environment is active"),
)

STATUS = (
    Rule(r"--tamper", "the program ends with the error"),
    Rule(r"^pipellm doctor", "says that something is wrong with this machine"),
)
"""Commands that may end with status 1."""
