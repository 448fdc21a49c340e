"""torch.compile: on the host as without a device, and on the device what the program says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from .conftest import Run

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch._dynamo.reset()


def test_every_name_that_the_compiler_knows_is_a_function_of_its_own() -> None:
    from torch._dynamo import trace_rules
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    names = [
        name
        for rules in trace_rules.torch_name_rule_map
        for name in cast("dict[str, object]", rules)
        if name.startswith("torch._C._cuda_")
    ]
    functions = {name: trace_rules.load_object(name) for name in names}
    present = [function for function in functions.values() if function is not None]
    assert len(present) > 30, "the emulated GPU's are among them"
    assert len({id(function) for function in present}) == len(present)
    others = {id(value) for name, value in vars(torch._C).items() if not name.startswith("_cuda_")}
    assert [name for name, function in functions.items() if id(function) in others] == []
    assert dict not in present
    assert trace_rules.get_torch_obj_rule_map()
    assert TorchInGraphFunctionVariable._get_handlers()


def steps(x: torch.Tensor) -> torch.Tensor:
    one = dict(one=1)  # noqa: C408 (`dict` must be traced as what it is)
    return (x.sin() + one["one"]) @ x.cos()


def there_and_back(x: torch.Tensor) -> torch.Tensor:
    return (x.cpu() * 2).cuda()


def on_another_stream(x: torch.Tensor) -> torch.Tensor:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        result = x * 2
    event = torch.cuda.Event()
    event.record(stream)
    torch.cuda.current_stream().wait_event(event)
    return result


def on_a_named_device(x: torch.Tensor) -> torch.Tensor:
    with torch.cuda.device(0):
        return x + torch.cuda.current_device() + torch.ones(4, device="cuda")


def in_mixed_precision(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cuda", torch.bfloat16):
        return x @ x


PROGRAMS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    steps,
    there_and_back,
    on_another_stream,
    on_a_named_device,
    in_mixed_precision,
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_function_on_the_device_does_what_it_does_uncompiled(
    program: Callable[[torch.Tensor], torch.Tensor], backend: str
) -> None:
    x = torch.randn(4, 4, device="cuda")
    assert torch.equal(torch.compile(program, backend=backend)(x), program(x))


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_every_mode_falls_back(mode: str) -> None:
    layer, x = nn.Linear(3, 3).cuda(), torch.randn(3, 3, device="cuda")
    assert torch.equal(torch.compile(layer, mode=mode)(x), layer(x))


def test_one_graph_serves_every_size() -> None:
    compiled = torch.compile(steps, dynamic=True, fullgraph=True)
    for size in 3, 4, 5:
        x = torch.randn(size, size, device="cuda")
        assert torch.equal(compiled(x), steps(x))


def test_training_a_compiled_module_equals_training_the_module() -> None:
    x = torch.randn(4, 3, device="cuda")
    weights = []
    for compiled in False, True:
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1)).cuda()
        optimizer = torch.optim.AdamW(layer.parameters())
        module = torch.compile(layer) if compiled else layer
        for _ in range(3):
            module(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(layer.state_dict())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


def test_an_exported_module_gives_the_same() -> None:
    layer, x = nn.Linear(3, 3).cuda(), torch.randn(2, 3, device="cuda")
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


def test_packaging_a_module_on_the_device_is_refused() -> None:
    exported = torch.export.export(nn.Linear(3, 3).cuda(), (torch.ones(2, 3, device="cuda"),))
    with pytest.raises(NotImplementedError, match="the emulated GPU has no compiler"):
        torch._inductor.aoti_compile_and_package(exported)


def test_scripted_functions_run() -> None:
    x = torch.randn(4, 4, device="cuda")
    traced = torch.jit.trace(steps, x)
    for _ in range(4):  # the first ones only watch
        assert torch.equal(traced(x), steps(x))


BEFORE_THE_DEVICE = """
    import torch
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3))  # imports Dynamo
    import pipellm
    pipellm.enable(policy="off", profile="fast")

    @torch.compile(backend="eager", fullgraph=True)
    def on_a_named_device(x):
        with torch.cuda.device(0):
            return x + torch.cuda.current_device()

    assert torch.equal(on_a_named_device(torch.ones(3, device="cuda")).cpu(), torch.ones(3))
    print("done")
"""


def test_a_program_may_compile_before_it_asks_for_the_device(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(BEFORE_THE_DEVICE))
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert run.stdout == "done\n", run.stderr


COMPILING = """
    import torch
    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    x = torch.randn(4, 8)
    torch.testing.assert_close(torch.compile(layer)(x), layer(x))
    print("host")
    layer, x = layer.cuda(), x.cuda()
    for mode in None, "max-autotune":
        for size in 1, 2, 4:
            assert torch.equal(torch.compile(layer, mode=mode)(x[:size]), layer(x[:size]))
    print("device")
    try:
        from triton.runtime.driver import driver
        driver.active
    except (ImportError, RuntimeError):
        print("no Triton")
"""


@pytest.mark.long
def test_the_host_is_compiled_for_and_the_device_falls_back_with_one_line(run_program: Run) -> None:
    result = run_program(COMPILING, sys.executable, environment={"PYTHONWARNINGS": "ignore"})
    assert result.stdout.split("\n") == ["host", "device", "no Triton", ""], result.stderr
    assert result.stderr == (
        "pipellm: torch.compile: the emulated GPU has no compiler; its graphs run uncompiled\n"
    )
