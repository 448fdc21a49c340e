"""FLOPs and bytes of operators, from their shapes."""

from __future__ import annotations

import json
from pathlib import Path

from pipellm.trace import Trace
from pipellm.workloads.events import Compute, Synchronize
from tests.trace.conftest import Record

OPERATORS = """
    import json, sys, torch
    from torch.nn import functional as F
    from torch.utils.flop_counter import FlopCounterMode

    def conv(x, w, transposed=False):
        function = F.conv_transpose2d if transposed else F.conv2d
        return function(x, w, stride=2, padding=1)

    def conv_backward(x, w, grad, mask):
        return torch.ops.aten.convolution_backward(
            grad, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)

    cases = {
        "mm": (torch.mm, (7, 5), (5, 3)),
        "addmm": (torch.addmm, (3,), (7, 5), (5, 3)),
        "bmm": (torch.bmm, (2, 7, 5), (2, 5, 3)),
        "baddbmm": (torch.baddbmm, (2, 7, 3), (2, 7, 5), (2, 5, 3)),
        "linear": (F.linear, (4, 6, 5), (3, 5), (3,)),
        "conv": (conv, (2, 4, 9, 9), (6, 4, 3, 3)),
        "transposed": (lambda x, w: conv(x, w, True), (2, 4, 9, 9), (4, 6, 3, 3)),
        "conv_backward": (lambda *a: conv_backward(*a, [True, True, False]),
                          (2, 4, 9, 9), (6, 4, 3, 3), (2, 6, 9, 9)),
        "conv_weight": (lambda *a: conv_backward(*a, [False, True, False]),
                        (2, 4, 9, 9), (6, 4, 3, 3), (2, 6, 9, 9)),
    }
    counted = {}
    for name, (function, *shapes) in cases.items():
        inputs = [torch.ones(shape) for shape in shapes]
        with FlopCounterMode(display=False) as counter:
            function(*inputs)
        counted[name] = counter.get_total_flops()
        inputs = [tensor.cuda() for tensor in inputs]
        torch.cuda.synchronize()
        function(*inputs)
        torch.cuda.synchronize()
    json.dump(counted, open(OUT, "w"))
"""

OPT = """
    import json, torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import OPTConfig, OPTForCausalLM
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(
        hidden_size=256, word_embed_proj_dim=256, ffn_dim=1024, num_hidden_layers=2,
        num_attention_heads=4, vocab_size=1000, max_position_embeddings=128)).eval()
    ids = torch.arange(2 * 96).reshape(2, 96)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(ids)
        model.cuda()
        ids = ids.cuda()
        torch.cuda.synchronize()
        model(ids)
        torch.cuda.synchronize()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    json.dump({"flops": counter.get_total_flops(), "weights": weights}, open(OUT, "w"))
"""


def between_waits(trace: Trace) -> list[list[Compute]]:
    """What was computed between one synchronisation of the device and the next."""
    groups: list[list[Compute]] = [[]]
    for _, event in trace.steps:
        if event == Synchronize():
            groups.append([])
        elif isinstance(event, Compute):
            groups[-1].append(event)
    return [group for group in groups if group]


def test_products_and_convolutions_are_what_torch_counts(record: Record, tmp_path: Path) -> None:
    out = tmp_path / "counted.json"
    trace = record(OPERATORS.replace("OUT", repr(str(out)))).trace()
    recorded = [sum(compute.flops for compute in group) for group in between_waits(trace)]
    assert recorded == list(json.loads(out.read_text()).values())


def test_the_forward_pass_of_opt_is_what_torch_counts(record: Record, tmp_path: Path) -> None:
    out = tmp_path / "counted.json"
    trace = record(OPT.replace("OUT", repr(str(out)))).trace()
    (forward,) = between_waits(trace)
    counted = json.loads(out.read_text())
    flops = sum(compute.flops for compute in forward)
    # Torch counts products alone; element-wise operators are a few percent here.
    assert counted["flops"] <= flops <= 1.1 * counted["flops"]
    # Every weight is read once, the embeddings of the words that came in part.
    assert sum(compute.nbytes for compute in forward) >= 0.9 * counted["weights"]


BYTES = {
    "a.add_(1)": 2 * 4000,
    "a + a": 3 * 4000,
    "a.zero_()": 4000,
    "torch.add(a, a, out=b)": 3 * 4000,
    "table[index]": 2 * 3 * 400 + 3 * 8,
    "table.index_add_(0, index, rows)": 3 * (3 * 400 + 3 * 8),
    "a.expand(50, 1000) * 2": 4000 + 50 * 4000,
    "b.copy_(a)": 2 * 4000,
}


def test_bytes_are_those_that_are_read_and_written(record: Record) -> None:
    lines = "; torch.cuda.synchronize(); ".join(BYTES)
    trace = record(f"""
        import torch
        a, b = torch.ones(1000, device="cuda"), torch.ones(1000, device="cuda")
        table, rows = torch.ones(1000, 100, device="cuda"), torch.ones(3, 100, device="cuda")
        index = torch.tensor([1, 2, 3]).cuda()
        torch.cuda.synchronize(); {lines}; torch.cuda.synchronize()
    """).trace()
    touched = [sum(compute.nbytes for compute in group) for group in between_waits(trace)]
    assert dict(zip(BYTES, touched[1:], strict=True)) == BYTES
