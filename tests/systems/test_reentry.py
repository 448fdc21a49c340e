"""Programs whose handlers and finalisers copy or raise, wherever Python happens to run them."""

from __future__ import annotations

from .conftest import Launcher

PRELUDE = """
import signal, torch
weights = [torch.full((1 << 16,), float(i)).pin_memory() for i in range(6)]
state = torch.ones(1000, device="cuda")
def step():
    for weight in weights:
        weight.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
def require_right():
    for weight in weights:
        assert torch.equal(weight.to("cuda").cpu(), weight)
    print("right")
for _ in range(5):
    step()
"""

INTERRUPTED = """
signal.signal(signal.SIGALRM, signal.default_int_handler)  # as ^C
for trial in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + 1e-4 * trial)
        while True:
            step()
    except KeyboardInterrupt:
        pass
require_right()
"""

SAVING = """
saved = 0
def save(*_):
    global saved
    assert state.cpu().sum() == 1000
    saved += 1
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + 1e-4 * (saved % 40))
signal.signal(signal.SIGALRM, save)
save()
while saved < 60:
    step()
signal.setitimer(signal.ITIMER_REAL, 0)
require_right()
"""

FINALISED = """
finalised = 0
class Holder:
    def __init__(self):
        self.me, self.tensor = self, torch.ones(1000, device="cuda")
    def __del__(self):
        global finalised
        assert self.tensor.cpu().sum() == 1000
        finalised += 1
while finalised < 60:  # with the thresholds that Python has
    for weight in weights:
        weight.to("cuda", non_blocking=True)
        Holder()
    torch.cuda.synchronize()
require_right()
"""

TRAINED = """
parameter = torch.ones(1000, requires_grad=True)
moved = (parameter * 2).to("cuda")
moved.sum().backward()  # refused where PyTorch believes that its caller has the GIL
assert parameter.grad.sum() == 2000
require_right()
"""


def run(launch: Launcher, program: str) -> None:
    result = launch(PRELUDE + program, policy="pipelined")
    assert (result.returncode, result.stdout) == (0, "right\n"), result.stderr


def test_an_interrupted_copy_raises_keyboard_interrupt_and_the_device_goes_on(
    launch: Launcher,
) -> None:
    run(launch, INTERRUPTED)


def test_a_signal_handler_may_save_what_is_on_the_device(launch: Launcher) -> None:
    run(launch, SAVING)


def test_a_finaliser_may_save_what_is_on_the_device(launch: Launcher) -> None:
    run(launch, FINALISED)


def test_autograd_runs_beside_the_planner(launch: Launcher) -> None:
    run(launch, TRAINED)
