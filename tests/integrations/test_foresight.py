"""The scheduler's half foretells what vLLM's scheduler will load next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes seconds, and every process that runs tests imports all of them
    from vllm.v1.kv_offload.base import OffloadKey, ReqContext

    from pipellm.integrations.vllm.chunks import Chunks, Groups


class Scheduler:
    """Says to the manager what vLLM's scheduler says."""

    def __init__(self, chunks: int = 1000) -> None:
        from vllm.v1.kv_offload import base

        from pipellm.integrations.vllm.foresight import ForesightManager

        self.vllm = base
        self.manager = ForesightManager(chunks)
        self.requests: dict[str, ReqContext] = {}

    def arrive(self, name: str) -> None:
        self.requests[name] = self.vllm.ReqContext(name)
        self.manager.on_new_request(self.requests[name])

    def keys(self, name: str, *blocks: int) -> list[OffloadKey]:
        keys = [self.vllm.make_offload_key(f"{name}{block}".encode(), 0) for block in blocks]
        for block, key in zip(blocks, keys, strict=True):
            self.requests[name].set_offload_key_position(key, 32 * (block + 1))
        return keys

    def store(self, name: str, *blocks: int) -> Chunks:
        """Stores these blocks of a request that runs; what went to the worker with the job."""
        keys = self.keys(name, *blocks)
        output = self.manager.prepare_store(keys, self.requests[name])
        assert output is not None
        self.manager.complete_store(output.keys_to_store, self.requests[name])
        spec: Chunks = output.store_spec
        return spec

    def look_up(self, name: str, *blocks: int) -> None:
        for key in self.keys(name, *blocks):
            self.manager.lookup(key, self.requests[name])

    def load(self, name: str, *blocks: int) -> Chunks:
        return self.manager.prepare_load(self.keys(name, *blocks), self.requests[name])

    def end_step(self, *, new: tuple[str, ...] = (), preempted: tuple[str, ...] = ()) -> None:
        self.manager.on_schedule_end(self.vllm.ScheduleEndContext(new, set(preempted)))

    def finish(self, name: str) -> None:
        self.manager.on_request_finished(self.requests[name])


def busy(*names: str) -> tuple[Scheduler, dict[str, tuple[int, ...]]]:
    """Requests that run and have stored three blocks each, and where those are."""
    scheduler = Scheduler()
    chunks = {}
    for name in names:
        scheduler.arrive(name)
        chunks[name] = tuple(scheduler.store(name, 0, 1, 2).chunk_ids.tolist())
    return scheduler, chunks


def told(scheduler: Scheduler) -> Groups | None:
    """What the next job says, one of a request that runs."""
    scheduler.arrive("other")
    return scheduler.store("other", 0).expected


def test_preempted_requests_come_back_last_in_first_out() -> None:
    scheduler, chunks = busy("a", "b", "c")
    scheduler.end_step(preempted=("c",))
    scheduler.end_step(preempted=("b",))
    assert told(scheduler) == (chunks["b"], chunks["c"])


def test_of_those_preempted_in_one_step_the_latest_was_the_first_to_go() -> None:
    scheduler, chunks = busy("a", "b", "c")
    scheduler.end_step(preempted=("c", "b"))
    assert told(scheduler) == (chunks["b"], chunks["c"])


def test_the_first_in_the_queue_loads_what_was_looked_up_last() -> None:
    scheduler, chunks = busy("a", "b", "c")
    scheduler.end_step(preempted=("b", "c"))
    scheduler.look_up("b", 1, 2)
    scheduler.end_step()
    assert told(scheduler) == (chunks["b"][1:], chunks["c"])


def test_a_request_that_finds_no_room_is_expected_behind_the_preempted() -> None:
    scheduler, chunks = busy("a", "b", "c")
    scheduler.finish("c")
    scheduler.arrive("again")
    for key in scheduler.keys("c", 0, 1):
        scheduler.manager.lookup(key, scheduler.requests["again"])
    scheduler.end_step()
    scheduler.end_step(preempted=("b",))
    assert told(scheduler) == (chunks["b"], chunks["c"][:2])


def test_what_is_loaded_in_one_step_is_told_before_its_first_job() -> None:
    scheduler, chunks = busy("a", "b", "c")
    scheduler.end_step(preempted=("a", "b", "c"))
    first, second = scheduler.load("a", 0, 1, 2), scheduler.load("b", 1, 2)
    scheduler.end_step()
    assert first.expected == (chunks["a"], chunks["b"][1:], chunks["c"])
    assert second.expected is None


def test_what_has_not_changed_is_not_told_again() -> None:
    scheduler, chunks = busy("a", "b")
    scheduler.end_step(preempted=("b",))
    assert scheduler.store("a", 3).expected == (chunks["b"],)
    scheduler.end_step()
    assert scheduler.store("a", 4).expected is None


def test_a_request_that_runs_or_is_gone_is_not_expected() -> None:
    scheduler, _ = busy("a", "b", "c", "d")
    scheduler.end_step(preempted=("b", "c", "d"))
    assert scheduler.store("a", 3).expected
    scheduler.finish("b")
    scheduler.store("c", 3)  # it came back without a load
    scheduler.end_step(new=("d",))
    assert told(scheduler) == ()


def test_nothing_behind_an_evicted_block_is_expected() -> None:
    scheduler = Scheduler(chunks=5)
    scheduler.arrive("a")
    scheduler.arrive("b")
    stored = scheduler.store("a", 0, 1, 2)
    scheduler.end_step(preempted=("a",))
    scheduler.manager.touch(scheduler.keys("a", 0), scheduler.requests["a"])
    scheduler.store("b", 0, 1, 2)  # evicts the second of a
    scheduler.end_step()
    assert scheduler.store("b", 3).expected == (tuple(stored.chunk_ids.tolist())[:1],)


def test_only_so_much_is_foretold() -> None:
    from pipellm.integrations.vllm.foresight import FAR

    scheduler = Scheduler()
    for name in ("a", "b"):
        scheduler.arrive(name)
        scheduler.store(name, *range(100))
    scheduler.end_step(preempted=("a", "b"))
    groups = told(scheduler)
    assert groups is not None
    assert sum(len(group) for group in groups) == FAR
