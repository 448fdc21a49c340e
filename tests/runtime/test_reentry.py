"""A program's handlers, finalisers and hooks run where they like, and copies in them are copies.

Each test is a process of its own: signals, exits and forks are the process's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PRELUDE = """
import atexit, ctypes, faulthandler, gc, itertools, logging, os, signal, sys, threading
from pipellm.bench.driver_table import D2H, H2D
from tests.runtime.planned import PlannedGpu

faulthandler.dump_traceback_later(100, exit=True)  # hung: says where
SIZE = 200_000
gpu = PlannedGpu()
host = [gpu.host_alloc(SIZE) for _ in range(4)]
kept = [ctypes.create_string_buffer(SIZE) for _ in range(2)]
host += [ctypes.addressof(buffer) for buffer in kept]  # pageable
device = [gpu.malloc(SIZE) for _ in host]
back, small = gpu.host_alloc(SIZE), gpu.host_alloc(64)

def step(asynchronous=True):
    for source, destination in zip(host, device):
        gpu.copy(H2D, destination, source, SIZE, asynchronous=asynchronous)
    gpu.copy(D2H, back, device[3], SIZE, asynchronous=asynchronous)
    gpu.copy(H2D, device[0], host[0], 64, asynchronous=asynchronous)
    gpu.synchronize()

def save():
    gpu.copy(D2H, small, device[1], 64)

def require_right():
    for round_ in range(3):
        for i, address in enumerate(host):
            ctypes.memset(address, 16 * round_ + i + 1, SIZE)
        step()
        for i, address in enumerate(device):
            assert ctypes.string_at(address, SIZE) == bytes([16 * round_ + i + 1]) * SIZE, i
        assert ctypes.string_at(back, SIZE) == bytes([16 * round_ + 4]) * SIZE
        assert gpu.counted["auth_failures"] == 0
    print("right")

for _ in range(4):
    step()
assert gpu.tally["hits"]  # it is being sealed ahead
"""


def run(program: str, *, prelude: str = PRELUDE, **environment: str) -> str:
    """Runs it to its end; what it wrote. Exit status 0 is required."""
    result = subprocess.run(
        [sys.executable, "-c", prelude + program],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-3000:])
    return result.stdout + result.stderr


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError", "Alarm"])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_handler_that_raises_at_any_moment_is_heard_and_leaves_the_device_whole(
    error: str, asynchronous: bool
) -> None:
    said = run(f"""
class Alarm(Exception):
    pass

def handler(*_):
    raise {error}

signal.signal(signal.SIGALRM, handler)
heard = 0
while heard < 200:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003 + heard * 2e-5)
        while True:
            step({asynchronous})
    except {error}:
        heard += 1
require_right()
""")
    assert said == "right\n"


def test_a_handler_that_copies_just_copies() -> None:
    said = run("""
heard = 0
def handler(*_):
    global heard
    save()
    heard += 1
    signal.setitimer(signal.ITIMER_REAL, 0.0003 + heard % 50 * 2e-5)

signal.signal(signal.SIGALRM, handler)
handler()
while heard < 200:
    step()
signal.setitimer(signal.ITIMER_REAL, 0)
require_right()
""")
    assert said == "right\n"


def test_a_finaliser_that_copies_just_copies_whenever_garbage_is_collected() -> None:
    said = run("""
finalised = 0
class Holder:
    def __init__(self):
        self.me = self
    def __del__(self):
        global finalised
        save()
        finalised += 1

thresholds = itertools.cycle(range(1, 400, 3))  # so that it is due at every place
while finalised < 200:
    gc.set_threshold(next(thresholds))
    for _ in range(3):
        Holder()
        step()
require_right()
""")
    assert said == "right\n"


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_a_trace_function_that_copies_just_copies_and_sees_nothing_of_ours(hook: str) -> None:
    said = run(f"""
busy, seen = False, set()
def hook(frame, event, argument):
    global busy
    if not busy:
        busy = True
        seen.add(frame.f_globals.get("__name__"))
        save()
        busy = False
    return hook

sys.{hook}(hook)
for _ in range(20):
    step()
sys.{hook}(None)
seen.discard("pipellm.bench.driver_table")  # what this program copies with
assert not [name for name in seen if name and name.startswith("pipellm")], seen
require_right()
""")
    assert said == "right\n"


def test_a_log_handler_that_copies_just_copies() -> None:
    said = run("""
class Saving(logging.Handler):
    def emit(self, record):
        save()

logging.basicConfig(level=logging.DEBUG, handlers=[Saving()])
for _ in range(20):
    step()
    logging.debug("a step")
require_right()
""")
    assert said == "right\n"


def test_a_program_near_its_recursion_limit_hears_of_it_and_leaves_the_device_whole() -> None:
    said = run("""
def dive(depth):
    gpu.copy(H2D, device[depth % 6], host[depth % 6], SIZE, asynchronous=True)
    dive(depth + 1)

for limit in range(150, 230):  # so that it ends everywhere in a copy
    sys.setrecursionlimit(limit)
    try:
        dive(0)
    except (RecursionError, ctypes.ArgumentError):  # as ctypes calls one of its own
        pass
    finally:
        sys.setrecursionlimit(1000)
require_right()
""")
    assert said == "right\n"


def test_threads_copy_while_handlers_raise_and_copy() -> None:
    said = run("""
class Alarm(Exception):
    pass

heard = 0
def handler(*_):
    global heard
    heard += 1
    save()
    if heard % 2:
        raise Alarm

done = threading.Event()
def client():
    mine, there = gpu.host_alloc(SIZE), gpu.malloc(SIZE)
    while not done.is_set():
        gpu.copy(H2D, there, mine, SIZE, asynchronous=True)
        gpu.synchronize()

threads = [threading.Thread(target=client) for _ in range(3)]
for thread in threads:
    thread.start()
signal.signal(signal.SIGALRM, handler)
while heard < 100:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        step()
    except Alarm:
        pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
done.set()
for thread in threads:
    thread.join()
require_right()
""")
    assert said == "right\n"


def test_a_thread_that_python_has_not_made_copies_and_calls_python() -> None:
    said = run("""
from ctypes import CFUNCTYPE, c_ulong, c_void_p, byref
libc = ctypes.CDLL(None)
local = threading.local()

def body(_):
    for i in range(50):
        local.value = i
        step()
        assert local.value == i  # the same thread state still
        assert ctypes.pythonapi.PyGILState_Check() == 1
    return None

entry = CFUNCTYPE(c_void_p, c_void_p)(body)
threads = []
for _ in range(3):
    thread = c_ulong()
    assert libc.pthread_create(byref(thread), None, entry, None) == 0
    threads.append(thread)
for thread in threads:
    libc.pthread_join(thread, None)
require_right()
""")
    assert said == "right\n"


def test_pygilstate_check_says_who_has_the_gil() -> None:
    """PyTorch's autograd refuses to run for a caller that has it."""
    said = run("""
assert ctypes.PyDLL(None).PyGILState_Check() == 1
assert ctypes.CDLL(None).PyGILState_Check() == 0
require_right()
""")
    assert said == "right\n"


def test_python_may_check_its_own_memory_calls() -> None:
    assert run("require_right()", PYTHONMALLOC="debug", PYTHONDEVMODE="1").startswith("right\n")


FAILING = """
from pipellm import _native
from pipellm.runtime import planning
start = _native.Interpreter.start
places = planning.places()
start([*places, os.getcwd()], "tests.runtime.failing_interpreter")
"""


def test_a_planner_that_fails_costs_speed_and_nothing_else() -> None:
    first, rest = PRELUDE.split("gpu = PlannedGpu()")
    said = run(
        """
for _ in range(10):
    step()
require_right()
require_right()
gpu.close()
""",
        prelude=first + FAILING + "gpu = PlannedGpu()" + rest,
    )
    warning = (
        "pipellm: GPU 0: the planner failed (MemoryError: no room to think); from now on every "
        "copy is sealed when it is asked for\n"
    )
    assert said == "right\nright\n" + warning


def test_copies_are_made_to_the_very_end() -> None:
    said = run("""
from pipellm.runtime import planning

def late():  # runs after the planner's interpreter has ended
    require_right()

atexit.register(late)
atexit.unregister(planning.interpreter().end)
atexit.register(planning.interpreter().end)
def forever():
    there = gpu.malloc(SIZE)
    while True:
        gpu.copy(H2D, there, host[1], SIZE, asynchronous=True)
threading.Thread(target=forever, daemon=True).start()
step()
""")
    assert said == "right\n"


FORKED = """
from pipellm.runtime import planning
import ctypes, gc, os, sys
planning.interpreter()
for _ in range(3):
    child = os.fork()
    if child == 0:
        break
    assert os.waitpid(child, 0)[1] == 0
else:
    sys.exit()
"""  # what follows is done by three children of a process that has not used the device


def test_a_forked_child_of_a_process_that_has_not_used_the_device_plans_for_itself() -> None:
    assert run("require_right()", prelude=FORKED + PRELUDE) == "right\n" * 3


def test_a_child_forked_at_any_moment_ends_as_it_should() -> None:
    said = run("""
faulthandler.cancel_dump_traceback_later()  # a child of one with a timer cannot end
done = threading.Event()
def client():
    there = gpu.malloc(SIZE)
    while not done.is_set():
        gpu.copy(H2D, there, host[1], SIZE, asynchronous=True)
        gpu.synchronize()
thread = threading.Thread(target=client)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        sys.exit(0)  # by way of the exit handlers
    assert os.waitpid(child, 0)[1] == 0
done.set()
thread.join()
require_right()
""")
    assert said == "right\n"


def test_nothing_of_the_site_runs_twice(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('customised')\n")
    (tmp_path / "enum.py").write_text("raise ImportError('not the standard one')\n")
    shadowing = f"import enum, re, dataclasses, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    path = os.pathsep.join([str(REPOSITORY), str(tmp_path / "site")])
    (tmp_path / "site").mkdir()
    (tmp_path / "sitecustomize.py").rename(tmp_path / "site" / "sitecustomize.py")
    said = run("require_right()", prelude=shadowing + PRELUDE, PYTHONPATH=path)
    assert said == "customised\nright\n"
