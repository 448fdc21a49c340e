"""Backward runs on the thread that calls it.

For CUDA tensors the engine would start a thread per device. At exit those wait for the GIL of an
interpreter that is gone, and now and then that aborts the process. `set_multithreading_enabled` is
a thread's own setting, so it is made where every thread's backward passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.variable import Variable


class CallingThreadEngine(torch._C._ImperativeEngine):
    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return super().run_backward(*args, **kwargs)


def install() -> None:
    Variable._execution_engine = CallingThreadEngine()
