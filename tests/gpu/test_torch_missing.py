"""What docs/emulation.md says is missing says so itself, in the words that the page has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .conftest import Run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "emulation.md"


def told() -> list[tuple[str, str]]:
    """(expression, words), row by row, of the page's table."""
    section = PAGE.read_text().split("\n## Missing\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \| `?(.+?)`? \|$", section, re.MULTILINE)


def test_the_page_has_rows() -> None:
    assert len(told()) > 15


def test_everything_on_the_page_raises_its_line(run_program: Run) -> None:
    program = f"""
        import json
        import torch
        x = torch.ones(3, device="cuda")
        raised = []
        for expression in json.loads({json.dumps(json.dumps([code for code, _ in told()]))}):
            try:
                eval(expression)
                raised.append("nothing")
            except Exception as error:
                raised.append(f"{{type(error).__name__}}: {{error}}")
        print(json.dumps(raised))
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr
    raised = json.loads(done.stdout)
    assert raised == [
        f"NotImplementedError: the emulated GPU has no {words}" for _, words in told()
    ]


def test_whatever_torch_asks_of_a_cuda_build_is_there_or_refused(run_program: Run) -> None:
    """By name, in the Python half of PyTorch: nothing ends in an AttributeError."""
    program = """
        import re
        from pathlib import Path
        import torch
        torch.cuda.init()
        home = Path(torch.__file__).parent
        asked = set()
        for source in [*home.glob("cuda/*.py"), *home.glob("backends/cud*/*.py")]:
            asked |= set(re.findall(r"_C\\.(_(?:cuda|nccl|gds|host)_\\w+)", source.read_text()))
        # By the absence of this one torch knows that there is no NCCL.
        print(sorted(name for name in asked - {"_nccl_all_reduce"} if not hasattr(torch._C, name)))
    """
    done = run_program(program)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("method", ["spawn"])
def test_a_tensor_put_into_a_queue_is_refused_where_it_is_sent(
    run_program: Run, method: str
) -> None:
    program = f"""
        import torch
        from torch import multiprocessing

        if __name__ == "__main__":
            queue = multiprocessing.get_context({method!r}).Queue()
            queue.put(torch.ones(3, device="cuda"))
            queue.close()
            queue.join_thread()
    """
    done = run_program(program)
    line = "the emulated GPU has no memory that other processes can open: send tensor.cpu() instead"
    assert done.stderr.count(line) == 1
