"""What programs do with processes and threads: fork, exit, train with several."""

from __future__ import annotations

import sys

import pytest

from .conftest import Run

FORK = """
    import os, sys, torch
    {before}
    child = os.fork()
    if child == 0:
        try:
            {in_child}
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("still here", torch.ones(3, device="cuda").sum().item())
    sys.exit(os.waitstatus_to_exitcode(status))
"""

BAD_FORK = (
    "RuntimeError Cannot re-initialize CUDA in forked subprocess. To use CUDA with "
    "multiprocessing, you must use the 'spawn' start method"
)


@pytest.mark.parametrize(
    "in_child",
    [
        "torch.cuda.current_device()",
        "torch.ones(3, device='cuda')",
        "torch.ones(3).cuda()",
        "x.add_(1)",
        "x.cpu()",
    ],
)
def test_a_child_of_a_process_that_used_the_device_is_refused(
    run_program: Run, in_child: str
) -> None:
    before = "x = torch.ones(3, device='cuda')"
    done = run_program(FORK.format(before=before, in_child=in_child))
    assert done.returncode == 3, done.stderr
    assert done.stdout == f"{BAD_FORK}\nstill here 3.0\n"


def test_a_child_that_leaves_the_device_alone_runs(run_program: Run) -> None:
    before = "x = torch.ones(3, device='cuda')"
    in_child = "del x; assert torch.randn(64, 64).pow(2).sum() > 0"
    done = run_program(FORK.format(before=before, in_child=in_child))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_child_of_a_process_that_only_installed_it_has_the_device(run_program: Run) -> None:
    before = "assert torch.cuda.is_available() and torch.cuda.device_count() == 2"
    in_child = "assert torch.ones(3, device='cuda').sum().item() == 3"
    done = run_program(FORK.format(before=before, in_child=in_child))
    assert done.returncode == 0, done.stdout + done.stderr


def test_threads_that_ran_backward_do_not_disturb_the_exit(run_program: Run) -> None:
    program = """
        import threading, torch
        def work():
            weight = torch.randn(16, 16, device="cuda", requires_grad=True)
            (weight @ weight).sum().backward()
        threads = [threading.Thread(target=work) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        work()
        pending = torch.ones(1000, pin_memory=True).to("cuda", non_blocking=True)
        print("done")
    """
    done = run_program(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_collective_that_has_returned_holds_nothing_of_pythons(run_program: Run) -> None:
    """Gloo's thread would be the last to let go, at worst while the interpreter ends: an abort.

    It is kept from running wherever the program can run, as on a busy machine.
    """
    program = """
        import os, sys, threading, torch, torch.distributed as dist
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        one = torch.ones(4, device="cuda")
        dist.all_reduce(one)
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, {min(os.sched_getaffinity(0))})
            if thread != threading.get_native_id():
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))

        mark = object()  # work on other threads takes such marks along
        torch._C._stash_obj_in_tls("mark", mark)
        before = sys.getrefcount(mark)
        for _ in range(50):
            dist.all_reduce(one)
            assert sys.getrefcount(mark) == before
        dist.destroy_process_group()
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_data_parallel_training_with_gloo(run_program: Run) -> None:
    program = """
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        torch.cuda.set_device(rank)
        one = torch.full((4,), float(rank + 1), device="cuda")

        total = one.clone()
        dist.all_reduce(total)
        assert total.tolist() == [3] * 4, total
        sent = one.clone()
        dist.broadcast(sent, src=1)
        assert sent.tolist() == [2] * 4, sent
        parts = [torch.zeros(4, device="cuda") for _ in range(2)]
        dist.all_gather(parts, one)
        assert [part[0].item() for part in parts] == [1, 2], parts
        work = dist.all_reduce(total, op=dist.ReduceOp.MAX, async_op=True)
        work.wait()
        dist.barrier()
        assert one.device.index == rank

        torch.manual_seed(rank)
        model = torch.nn.Linear(4, 2).cuda()
        model = torch.nn.parallel.DistributedDataParallel(model, device_ids=[rank])
        model(one * torch.ones(3, 4, device="cuda")).sum().backward()
        gradient = model.module.weight.grad
        assert torch.allclose(gradient, torch.full_like(gradient, 4.5)), gradient
        dist.destroy_process_group()
        print("done")
    """
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = run_program(program, *launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 2
