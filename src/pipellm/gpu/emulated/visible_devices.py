"""CUDA_VISIBLE_DEVICES, as far as it can be meant for another machine than the emulated one."""

from __future__ import annotations

import re

from pipellm.errors import UserError

VARIABLE = "CUDA_VISIBLE_DEVICES"


def refuse_other_machines(value: str | None, gpus: int) -> None:
    """Raises UserError where `value` begins with a GPU that is not among the `gpus` emulated ones.

    CUDA would show no GPU at all then, and the program would run on the CPU or fail for no reason
    that it could name. A value that names none, to hide all of them, is nothing to complain of.
    """
    first = (value or "").strip()
    number = re.match(r"\d+", first)
    foreign = int(number[0]) >= gpus if number else first.startswith(("GPU-", "MIG-"))
    if foreign:
        numbers = "0" if gpus == 1 else f"0 to {gpus - 1}"
        raise UserError(
            f"{VARIABLE}={value}: the emulated GPUs have the numbers {numbers} and no UUIDs; "
            "change or unset it, or ask for more of them with --gpu emulated:N"
        )
