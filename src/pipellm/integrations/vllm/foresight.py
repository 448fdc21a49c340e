"""The scheduler's half: which chunks are where, and whose come back next.

vLLM stores a block as soon as it is full and loads it when a request comes (back) whose block is no
longer on the device. So the order of the stores says little about the order of the loads; the
scheduler's queue says all. Preempted requests go to its front, the last one first (LIFO), and a
request that finds no room yet has its chunks looked up before they are loaded. Both are told to us,
and to nobody else: this manager passes them on with the jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

from vllm.v1.kv_offload.base import LookupResult, get_offload_group_idx
from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager

from pipellm.integrations.vllm.chunks import Chunks, Groups

if TYPE_CHECKING:
    from vllm.v1.kv_offload.base import (
        OffloadKey,
        PrepareStoreOutput,
        ReqContext,
        RequestOffloadingContext,
        ScheduleEndContext,
    )

FAR = 128
"""So many chunks are foretold at most: twice what the planner plans ahead."""


class ForesightManager(CPUOffloadingManager):  # type: ignore[misc]
    """vLLM's own manager of host memory, which also says what will be loaded next."""

    def __init__(self, num_chunks: int, **options: Any) -> None:
        super().__init__(num_chunks, **options)
        self._chunk_of: dict[OffloadKey, int] = {}
        self._arrivals = count()
        self._arrival: dict[str, int] = {}
        self._keys: dict[str, dict[OffloadKey, int]] = {}  # what is known of a request, and where
        self._queue: list[str] = []  # requests that wait to come (back), the next one first
        self._looked_up: dict[str, dict[OffloadKey, None]] = {}  # what they would have loaded
        self._this_step: set[str] = set()  # those that were looked up in this step
        self._loads: list[Chunks] = []  # of this step
        self._expected: Groups = ()
        self._news = False  # whether `_expected` has yet to be told

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        self._arrival[req_context.req_id] = next(self._arrivals)
        self._keys[req_context.req_id] = {}
        return super().on_new_request(req_context)

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        result = super().lookup(key, req_context)
        name = req_context.req_id
        if name not in self._this_step:
            self._this_step.add(name)
            self._looked_up[name] = {}
        if result is LookupResult.HIT:
            self._looked_up[name][key] = None
            self._note([key], req_context)
        return result

    def prepare_load(self, keys: Collection[OffloadKey], req_context: ReqContext) -> Chunks:
        self._leave_queue(req_context.req_id)
        self._note(keys, req_context)
        load = Chunks(super().prepare_load(keys, req_context).chunk_ids)
        self._loads.append(load)
        return load

    def prepare_store(
        self, keys: Collection[OffloadKey], req_context: ReqContext
    ) -> PrepareStoreOutput | None:
        self._leave_queue(req_context.req_id)  # it runs, if it came back without a load
        self._note(keys, req_context)
        output = super().prepare_store(keys, req_context)
        if output is not None:
            for key in output.evicted_keys:
                self._chunk_of.pop(key, None)
            chunks = output.store_spec.chunk_ids.tolist()
            self._chunk_of.update(zip(output.keys_to_store, chunks, strict=True))
            output.store_spec = Chunks(chunks, self._take_news() if chunks else None)
        return output

    def on_schedule_end(self, context: ScheduleEndContext) -> None:
        super().on_schedule_end(context)
        # Each goes to the front of the queue, and the one that came last is the first to go there.
        latest_first = sorted(
            context.preempted_req_ids, key=lambda name: self._arrival.get(name, 0), reverse=True
        )
        for name in latest_first:
            self._leave_queue(name)
            self._queue.insert(0, name)
        for name in context.new_req_ids:
            self._leave_queue(name)
        self._this_step.clear()
        for name in self._looked_up:
            if name not in self._queue:
                self._queue.append(name)
        expected = self._groups()
        self._news |= expected != self._expected
        self._expected = expected
        if self._loads:
            # The worker gets the jobs one by one: the first one's tells of all.
            own = tuple(tuple(load.chunk_ids.tolist()) for load in self._loads)
            self._loads[0].expected = (*own, *expected)
            self._loads.clear()
            self._news = False

    def on_request_finished(self, req_context: ReqContext) -> None:
        super().on_request_finished(req_context)
        name = req_context.req_id
        self._leave_queue(name)
        self._arrival.pop(name, None)
        self._keys.pop(name, None)

    def reset_cache(self) -> None:
        super().reset_cache()
        self._chunk_of.clear()
        self._looked_up.clear()
        for keys in self._keys.values():
            keys.clear()

    def _note(self, keys: Iterable[OffloadKey], req_context: ReqContext) -> None:
        known = self._keys.setdefault(req_context.req_id, {})
        for key in keys:
            known[key] = req_context.get_offload_key_position(key) or 0

    def _leave_queue(self, name: str) -> None:
        self._looked_up.pop(name, None)
        if name in self._queue:
            self._queue.remove(name)

    def _take_news(self) -> Groups | None:
        news, self._news = self._news, False
        return self._expected if news else None

    def _groups(self) -> Groups:
        groups: list[tuple[int, ...]] = []
        room = FAR
        for name in self._queue:
            if name == self._queue[0] and name in self._looked_up:
                # Without what the device still has of it. Of those behind, that is soon gone.
                keys = list(self._looked_up[name])
            else:
                known = self._keys.get(name, {})
                keys = sorted(known, key=lambda key: (get_offload_group_idx(key), known[key]))
            group = tuple(self._chunks(keys))[:room]
            if group:
                groups.append(group)
            room -= len(group)
            if room == 0:
                break
        return tuple(groups)

    def _chunks(self, keys: Iterable[OffloadKey]) -> Iterable[int]:
        for key in keys:
            if (chunk := self._chunk_of.get(key)) is None:
                return  # evicted: nothing after it can be loaded
            yield chunk
