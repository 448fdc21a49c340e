"""PyTorch's own operator tests (OpInfo) on the emulated GPU: values and gradients are the CPU's.

    pipellm run --profile fast --policy off -- python -m tests.gpu.opinfo

OpInfo lists PyTorch's operators, each with samples of what it takes. Every sample runs on the CPU
and on the device, and what comes out is compared. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput
from torch.utils._pytree import tree_leaves, tree_map

DTYPES = (torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16)
DIFFERENTIATED = torch.float64

UNINITIALISED = frozenset(
    f"{maker}{of}"
    for maker in ("", "new_")
    for of in ("empty", "empty_like", "empty_permuted", "empty_strided", "resize_", "resize_as_")
)
"""What these give is whatever lay in memory: only its shape is compared."""

FACTORIES = frozenset(("arange", "linspace", "logspace"))
"""Their samples say nothing of a device."""

INDICES_ON_HOST = frozenset(("tensor_split",))
"""CUDA takes a tensor of indices from the host only."""

TOLERANCES: dict[str, dict[str, Any]] = {
    "nn.functional.scaled_dot_product_attention": {"rtol": 0.02, "atol": 0.01},
}
"""Where the device has another algorithm than the CPU: attention by PyTorch's own formula, as CUDA
has it without its fused kernels."""

REFUSAL = "the emulated GPU has no"
"""How the lines of docs/emulation.md begin."""

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""Input, other arguments, named arguments."""


@dataclass
class Tally:
    """How many samples of which kind came to what."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str) -> None:
        self.counts[f"{kind} {outcome}"] += 1

    def differ(self, kind: str, op: OpInfo, dtype: torch.dtype, error: BaseException) -> None:
        self.add(kind, "different")
        words = " ".join(str(error).split())
        self.differences.append(f"{op.formatted_name} {dtype} {kind}: {words:.200}")

    def summary(self) -> dict[str, Any]:
        return {**dict(sorted(self.counts.items())), "differences": self.differences}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.opinfo", description=__doc__)
    parser.add_argument("operators", nargs="*", help="these only, by OpInfo's names")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth operator only")
    parser.add_argument("--json", metavar="FILE", help="keep the counts")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device: start it with `pipellm run`")
    chosen = [op for op in op_db if not options.operators or op.name in options.operators]
    tally = compare_all(chosen[:: options.every], tell=lambda line: print(line, file=sys.stderr))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(tally.summary(), file, indent=1)
    for line in tally.differences:
        print(line)
    print(json.dumps(dict(sorted(tally.counts.items()))))
    return 1 if tally.differences else 0


def compare_all(ops: Sequence[OpInfo], tell: Callable[[str], None] = lambda line: None) -> Tally:
    """Every sample of every operator. `tell` gets a line now and then."""
    tally, begun = Tally(), time.monotonic()
    for i, op in enumerate(ops):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compare(op, tally)
        if (i + 1) % 20 == 0 or i + 1 == len(ops):
            tell(
                f"{i + 1} of {len(ops)} operators in {time.monotonic() - begun:.0f} s: "
                f"{tally.counts['values equal']:,} values and "
                f"{tally.counts['gradients equal']:,} gradients equal, "
                f"{len(tally.differences)} different"
            )
    return tally


def compare(op: OpInfo, tally: Tally) -> None:
    for dtype in DTYPES:
        if dtype in op.dtypes:
            for sample in samples(op, dtype, requires_grad=False):
                compare_values(op, dtype, sample, tally)
    if op.supports_autograd and DIFFERENTIATED in op.dtypes:
        for sample in samples(op, DIFFERENTIATED, requires_grad=True):
            compare_gradients(op, sample, tally)


def samples(op: OpInfo, dtype: torch.dtype, *, requires_grad: bool) -> Iterator[SampleInput]:
    """The same ones in every run."""
    seed()
    yield from op.sample_inputs("cpu", dtype, requires_grad=requires_grad)


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def compare_values(op: OpInfo, dtype: torch.dtype, sample: SampleInput, tally: Tally) -> None:
    try:
        expected = evaluate(op, on_host(op, sample))
    except Exception:
        return tally.add("values", "that the CPU refuses")
    try:
        result = evaluate(op, on_device(op, sample))
        assert_same(op, result, expected)
    except Exception as error:
        if REFUSAL in str(error):
            return tally.add("values", "refused in words")
        if is_random(op, sample, expected):
            return tally.add("values", "random")
        return tally.differ("values", op, dtype, error)
    tally.add("values", "equal")


def compare_gradients(op: OpInfo, sample: SampleInput, tally: Tally) -> None:
    try:
        expected = gradients(op, on_host(op, sample))
    except Exception:
        return tally.add("gradients", "that the CPU refuses")
    if not expected:
        return None
    try:
        assert_same(op, gradients(op, on_device(op, sample)), expected)
    except Exception as error:
        if REFUSAL in str(error):
            return tally.add("gradients", "refused in words")
        seed()
        if is_random(op, sample, evaluate(op, on_host(op, sample))):
            return tally.add("gradients", "random")
        return tally.differ("gradients", op, DIFFERENTIATED, error)
    tally.add("gradients", "equal")


def on_host(op: OpInfo, sample: SampleInput) -> Call:
    return moved(op, sample, torch.device("cpu"))


def on_device(op: OpInfo, sample: SampleInput) -> Call:
    return moved(op, sample, torch.device("cuda"))


def moved(op: OpInfo, sample: SampleInput, device: torch.device) -> Call:
    """A copy, so that operators that write to their input do so once."""

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            copy = value.detach().clone().to(device)
            return copy.requires_grad_(value.requires_grad)
        if isinstance(value, torch.device):
            return device
        return value

    kwargs = {
        name: device if name == "device" else tree_map(move, value)
        for name, value in sample.kwargs.items()
    }
    if op.name in FACTORIES:
        kwargs["device"] = device
    args = sample.args if op.name in INDICES_ON_HOST else tree_map(move, sample.args)
    return tree_map(move, sample.input), args, kwargs


def evaluate(op: OpInfo, call: Call) -> Any:
    first, args, kwargs = call
    return op(first, *args, **kwargs)


def gradients(op: OpInfo, call: Call) -> list[torch.Tensor | None]:
    inputs = [leaf for leaf in tree_leaves(call) if is_differentiable(leaf)]
    results = [leaf for leaf in tree_leaves(evaluate(op, call)) if is_differentiable(leaf)]
    if not inputs or not results:
        return []
    weights = [
        torch.linspace(0.5, 1.5, result.numel(), dtype=torch.float64).to(result).view_as(result)
        for result in results
    ]
    return list(torch.autograd.grad(results, inputs, weights, allow_unused=True))


def is_differentiable(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def assert_same(op: OpInfo, result: Any, expected: Any) -> None:
    same_values = op.name not in UNINITIALISED
    for mine, cpus in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        if not isinstance(cpus, torch.Tensor):
            assert mine == cpus or not same_values or mine != mine, f"{mine} is not {cpus}"
            continue
        assert mine.is_cuda or cpus.dim() == 0, f"the result is on {mine.device}"
        home = mine.cpu()
        torch.testing.assert_close(
            home if same_values else torch.zeros_like(home),
            cpus if same_values else torch.zeros_like(cpus),
            equal_nan=True,
            **TOLERANCES.get(op.name, {}),
        )


def is_random(op: OpInfo, sample: SampleInput, first: Any) -> bool:
    """Whether the CPU itself gives something else the second time."""
    try:
        for mine, other in zip(
            tree_leaves(evaluate(op, on_host(op, sample))), tree_leaves(first), strict=True
        ):
            torch.testing.assert_close(mine, other, equal_nan=True)
    except Exception:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
