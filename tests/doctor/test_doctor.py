"""`pipellm doctor` as a process: on this machine, and on one with a driver that is made up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipellm.doctor import probe

HERE = Path(__file__).parent


def doctor(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipellm", "doctor", *options]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def findings(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two libraries of a driver for a confidential GPU."""
    folder = tmp_path_factory.mktemp("driver")
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler
    for library, source in (("libnvidia-ml.so.1", "stub_nvml.c"), ("libcuda.so.1", "stub_cuda.c")):
        flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(folder / library)]
        subprocess.run([compiler, *flags, str(HERE / source), "-ldl"], check=True)
    return folder


def test_this_machine_is_told_what_it_is() -> None:
    result = doctor("--json")
    said = json.loads(result.stdout)
    assert result.returncode == 0, result.stdout
    assert {check["status"] for check in said["checks"]} <= {"ok", "warn"}
    assert said["seal_gbps"] >= said["libcrypto_gbps"] > 0
    assert said["engine"] in ("openssl", "ipsec-mb")


def test_the_table_has_a_line_for_each_finding() -> None:
    # Not compared word for word: speeds differ from run to run.
    table = doctor(COLUMNS="200").stdout
    assert "no GPU: the emulated device will be used" in table
    assert all(name in table for name in findings(doctor("--json")))


def test_with_a_confidential_gpu_a_copy_shows_that_the_driver_asks_the_provider(
    driver: Path,
) -> None:
    result = doctor("--json", LD_LIBRARY_PATH=str(driver), STUB_CC="on")
    found = findings(result)
    assert result.returncode == 0, result.stdout
    assert found["gpu"]["detail"] == "1 x NVIDIA H100 NVL"
    assert found["driver"]["detail"] == "NVIDIA 999.00"
    assert found["confidential computing"]["status"] == "ok"
    assert found["copy"]["detail"] == "copied 16 MiB; the provider sealed 16 MiB of it"
    assert "refused (801)" in found["pinned memory"]["detail"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unsealed", "did not ask the provider"),
        ("broken", "is not what was sent"),
        ("error", "cuInit failed: CUDA error 999"),
    ],
)
def test_a_copy_that_goes_wrong_is_a_failure(driver: Path, fault: str, said: str) -> None:
    result = doctor("--json", LD_LIBRARY_PATH=str(driver), STUB_CC="on", STUB_CUDA=fault)
    assert result.returncode == 1
    assert findings(result)["copy"]["status"] == "fail"
    assert said in findings(result)["copy"]["detail"]


def test_a_driver_that_crashes_is_a_failure_and_no_crash(tmp_path: Path, driver: Path) -> None:
    shutil.copy(driver / "libnvidia-ml.so.1", tmp_path)
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\nint cuInit(unsigned f) { (void)f; abort(); }\n")
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    result = doctor("--json", LD_LIBRARY_PATH=str(tmp_path), STUB_CC="on")
    assert result.returncode == 1
    assert "ended with -6" in findings(result)["copy"]["detail"]


def test_gpus_that_take_no_work_are_not_given_any(driver: Path) -> None:
    result = doctor("--json", LD_LIBRARY_PATH=str(driver), STUB_CC="busy")
    assert result.returncode == 1
    assert "nvidia-smi conf-compute -srs 1" in findings(result)["confidential computing"]["remedy"]
    assert findings(result)["copy"]["status"] == "ok"


def test_an_ordinary_gpu_is_no_failure(driver: Path) -> None:
    result = doctor("--json", LD_LIBRARY_PATH=str(driver), STUB_CC="off")
    assert result.returncode == 0
    assert findings(result)["confidential computing"]["status"] == "warn"


TDX = "processor\t: 0\nmodel name\t: Intel Xeon\nflags\t\t: fpu aes tdx_guest vaes\n"
ARM = "processor\t: 0\nFeatures\t: fp aes pmull\n"


def test_a_guest_is_known_by_what_the_kernel_shows(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(ARM)
    assert probe.kernel(True, tmp_path).guest is None
    assert probe.processor(tmp_path).flags == {"fp", "aes", "pmull"}
    (tmp_path / "dev/sev-guest").touch()
    assert probe.kernel(True, tmp_path).guest == "AMD SEV-SNP"
    cpuinfo.write_text(TDX)
    assert probe.kernel(True, tmp_path).guest == "Intel TDX"
    assert probe.processor(tmp_path).model == "Intel Xeon"


def test_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n")
    assert probe.memory(1.0, tmp_path).total_bytes == 2 << 20
    assert probe.memory(1.0, tmp_path).huge_pages is None
    huge = tmp_path / "sys/kernel/mm/transparent_hugepage"
    huge.mkdir(parents=True)
    (huge / "enabled").write_text("always madvise [never]\n")
    assert probe.memory(1.0, tmp_path).huge_pages == "never"
