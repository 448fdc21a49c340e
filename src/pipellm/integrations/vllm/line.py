"""One direction of the link, as the worker uses it: pieces wait for a buffer, fly, and land.

The buffers are device memory in which a piece's blocks lie together, so that a chunk is one copy.
They are made once: what is waiting for one costs nothing and cannot fail.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Not by way of `torch.cuda`: a CPU build of vLLM puts placeholders there that do nothing.
from torch.cuda.streams import Event, Stream

from pipellm.integrations.vllm.jobs import Piece
from pipellm.integrations.vllm.pages import Pages

BUFFERS = 4
"""So many pieces are in flight at once."""

BUFFER_BYTES = 16 << 20
"""A piece is as many chunks as fit, but at least one."""


@dataclass(slots=True)
class Job:
    """What vLLM asked for at once."""

    id: int
    pieces: int  # that have not landed
    nbytes: int
    seconds: float = 0.0  # on the link


@dataclass(slots=True)
class _Flight:
    job: Job
    piece: Piece
    buffer: Tensor
    rows: Tensor  # of it, one per chunk
    start: Event
    end: Event


class Line(ABC):
    """Pieces go in the order in which they were submitted, and land in it."""

    def __init__(self, pages: Pages, row: Callable[[int, int], Tensor], buffer_bytes: int) -> None:
        """`row(chunk, nbytes)` is the host memory of a chunk."""
        self._pages = pages
        self._row = row
        self._stream = Stream(pages.device)
        self._free = [
            torch.empty(buffer_bytes, dtype=torch.int8, device=pages.device) for _ in range(BUFFERS)
        ]
        self._waiting: deque[tuple[Job, Piece]] = deque()
        self._flying: deque[_Flight] = deque()
        self._done: list[Job] = []

    def submit(self, job: Job, pieces: Sequence[Piece]) -> None:
        """Takes on a job; what there are buffers for starts at once."""
        self._waiting.extend((job, piece) for piece in pieces)
        if not pieces:
            self._done.append(job)
        self._start()

    def finished(self) -> list[Job]:
        """The jobs that are done since the last time."""
        while self._flying and self._flying[0].end.query():
            self._land()
        self._start()
        done, self._done = self._done, []
        return done

    def wait(self, jobs: set[int]) -> None:
        """Returns when these jobs are done, as far as they are this line's."""
        while any(job.id in jobs for job, _ in self._waiting) or any(
            flight.job.id in jobs for flight in self._flying
        ):
            self._flying[0].end.synchronize()
            self._land()
            self._start()

    def drain(self) -> None:
        """Returns when everything is done."""
        self.wait({job.id for job, _ in self._waiting} | {f.job.id for f in self._flying})

    def _start(self) -> None:
        while self._waiting and self._free:
            job, piece = self._waiting.popleft()
            buffer = self._free.pop()
            nbytes = self._pages.chunk_bytes[piece.group]
            rows = buffer[: len(piece.chunks) * nbytes].view(len(piece.chunks), nbytes)
            start, end = Event(enable_timing=True), Event(enable_timing=True)
            self._before(piece, rows)
            # Whatever was computed up to here comes before the copies: the blocks that are stored
            # have been written, those that are loaded are no longer read.
            self._stream.wait_stream(_current_stream(self._pages.device))
            with self._stream:
                start.record(self._stream)
                for chunk, row in zip(piece.chunks, rows, strict=True):
                    self._copy(self._row(chunk, nbytes), row)
                end.record(self._stream)
            self._flying.append(_Flight(job, piece, buffer, rows, start, end))

    def _land(self) -> None:
        flight = self._flying.popleft()
        self._after(flight.piece, flight.rows)
        self._free.append(flight.buffer)
        job = flight.job
        job.seconds += flight.start.elapsed_time(flight.end) / 1e3
        job.pieces -= 1
        if job.pieces == 0:
            self._done.append(job)

    @abstractmethod
    def _before(self, piece: Piece, rows: Tensor) -> None:
        """On the device, before the copies."""

    @abstractmethod
    def _copy(self, host: Tensor, device: Tensor) -> None: ...

    @abstractmethod
    def _after(self, piece: Piece, rows: Tensor) -> None:
        """On the device, after the copies."""


def _current_stream(device: torch.device) -> Stream:
    stream_id, index, kind = torch._C._cuda_getCurrentStream(device.index)
    return Stream(stream_id=stream_id, device_index=index, device_type=kind)


class Stores(Line):
    """From the device to the host."""

    def _before(self, piece: Piece, rows: Tensor) -> None:
        self._pages.gather(piece, rows)

    def _copy(self, host: Tensor, device: Tensor) -> None:
        host.copy_(device, non_blocking=True)

    def _after(self, piece: Piece, rows: Tensor) -> None:
        pass


class Loads(Line):
    """From the host to the device."""

    def _before(self, piece: Piece, rows: Tensor) -> None:
        pass

    def _copy(self, host: Tensor, device: Tensor) -> None:
        device.copy_(host, non_blocking=True)

    def _after(self, piece: Piece, rows: Tensor) -> None:
        self._pages.scatter(piece, rows)
