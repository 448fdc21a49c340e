"""Streams and events of `torch.cuda`, on the device's own timeline."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("gpu")

MILLISECOND = 1_980_000  # cycles


def timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def test_a_stream_is_current_inside_its_context_only() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        assert torch.cuda.current_stream().cuda_stream == stream.cuda_stream
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.cuda.default_stream().cuda_stream == 0


def test_streams_compare_and_hash_by_what_they_are() -> None:
    stream = torch.cuda.Stream()
    again = torch.cuda.ExternalStream(stream.cuda_stream)
    assert stream == again
    assert hash(stream) == hash(again)
    assert stream != torch.cuda.Stream()
    assert stream != torch.cuda.Stream(device=1)
    assert "cuda_stream=" in repr(stream)


def test_streams_come_from_a_pool_per_priority() -> None:
    normal = {torch.cuda.Stream().cuda_stream for _ in range(100)}
    high = {torch.cuda.Stream(priority=-1).cuda_stream for _ in range(100)}
    assert len(normal) == len(high) == 32
    assert not normal & high
    assert torch.cuda.Stream(priority=-5).priority == -1
    assert torch.cuda.Stream(priority=1).priority == 0
    assert torch.cuda.Stream().priority_range() == (0, -1)


def test_each_device_has_its_own_current_stream() -> None:
    stream = torch.cuda.Stream(device=1)
    with torch.cuda.stream(stream):
        assert torch.cuda.current_device() == 1
        assert torch.cuda.current_stream(0) == torch.cuda.default_stream(0)
        assert torch.cuda.current_stream(1) == stream
    assert torch.cuda.current_device() == 0


def test_events_measure_the_streams_time() -> None:
    start, end = timed_event(), timed_event()
    start.record()
    torch.cuda._sleep(3 * MILLISECOND)
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) == pytest.approx(3, rel=0.5)


def test_a_stream_waits_for_another_ones_event() -> None:
    slow, fast = torch.cuda.Stream(), torch.cuda.Stream()
    start, end = timed_event(), timed_event()
    start.record(fast)
    with torch.cuda.stream(slow):
        torch.cuda._sleep(5 * MILLISECOND)
    fast.wait_stream(slow)
    end.record(fast)
    torch.cuda.synchronize()
    assert start.elapsed_time(end) >= 4


def test_data_passes_between_streams_through_events() -> None:
    producer, consumer = torch.cuda.Stream(), torch.cuda.Stream()
    source = torch.arange(64.0, pin_memory=True)
    with torch.cuda.stream(producer):
        copied = source.to("cuda", non_blocking=True)
        ready = producer.record_event()
    with torch.cuda.stream(consumer):
        consumer.wait_event(ready)
        total = copied.sum()
    copied.record_stream(consumer)
    consumer.synchronize()
    assert total.item() == source.sum().item()


def test_queries_tell_when_work_is_over() -> None:
    stream = torch.cuda.Stream()
    assert stream.query()
    event = torch.cuda.Event()
    assert event.query()  # never recorded
    with torch.cuda.stream(stream):
        torch.ones(8, pin_memory=True).to("cuda", non_blocking=True)
    event.record(stream)
    event.synchronize()
    stream.synchronize()
    assert event.query()
    assert stream.query()


def test_elapsed_time_needs_recorded_events_with_timing() -> None:
    with pytest.raises(ValueError, match="must be recorded"):
        timed_event().elapsed_time(timed_event())
    untimed = torch.cuda.Event()
    untimed.record()
    with pytest.raises(ValueError, match="enable_timing=True"):
        untimed.elapsed_time(untimed)


def test_generic_streams_and_events_are_the_same_ones() -> None:
    stream = torch.Stream(device="cuda")
    with stream:
        assert torch.cuda.current_stream().cuda_stream == stream.stream_id
        assert torch.accelerator.current_stream() == stream
    event = torch.Event(device="cuda")
    event.record(stream)
    torch.cuda.current_stream().wait_event(event)
    event.synchronize()
    assert event.query()


def test_nothing_is_ever_captured() -> None:
    assert not torch.cuda.is_current_stream_capturing()
    with torch.cuda.nvtx.range("a range that goes nowhere"):
        assert torch.cuda.nvtx.range_push("deeper") == 1
        torch.cuda.nvtx.range_pop()
