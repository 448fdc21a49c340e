"""The report on a program: the statistics of all its processes in one, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipellm.output import Output
from pipellm.runtime.prefetching import PREFETCHING
from pipellm.runtime.served import Served
from pipellm.runtime.speculation import SPECULATION
from pipellm.runtime.statistics import COUNTERS, SUFFIX, read
from pipellm.settings import OWN_GPU, Settings

Report = dict[str, Any]

_OF_SPECULATION = (
    "sealed_ahead_bytes",
    "wasted_bytes",
    "unseen_writes",
    "hidden_ns",
)
"""What the native core counts of it."""

_OF_PREFETCHING = ("link_transfers", "link_bytes")
"""Likewise of copies that layers make."""


@dataclass(frozen=True, slots=True)
class Process:
    """What one process left."""

    identity: Mapping[str, Any]
    counts: Mapping[str, int]


def collect(directory: Path) -> list[Process]:
    """The processes that left statistics in `directory`, in the order in which they came."""
    found = [
        Process(*content)
        for file in directory.glob(f"*{SUFFIX}")
        if (content := read(file)) is not None
    ]
    found.sort(key=lambda process: int(process.identity["started"]))
    # A forked child that never used the device is no process of ours: a data loader's worker, say.
    return [p for p in found if any(p.counts.values()) or not p.identity["forked"]]


def merge(
    settings: Settings,
    processes: Sequence[Process],
    served: Sequence[Served] = (),
    **ending: object,
) -> Report:
    """One report: what was asked for, the sums over `processes`, `ending` as it is.

    `served` is by whom the OpenSSL provider was loaded. docs/statistics.md says what each field is.
    """
    totals: Counter[str] = Counter()
    for process in processes:
        totals.update(process.counts)
    engines = {str(p.identity["engine"]) for p in processes if p.identity.get("engine")}
    chosen = {str(p.identity["chosen"]) for p in processes if p.identity.get("chosen")}
    emulated = settings.gpu != OWN_GPU
    return {
        "gpu": settings.gpu,
        # Nobody but the driver decides that of a GPU of one's own.
        "policy": settings.policy if emulated else None,
        "chosen": ", ".join(sorted(chosen)) or None,
        "profile": settings.profile if emulated else None,
        "attached": list(settings.attachments),
        "provider": _provider(served),
        "engine": ", ".join(sorted(engines)) or None,
        **(_sections(totals) if emulated else {}),
        **ending,
        "processes": [_part(process, emulated) for process in processes],
    }


def _provider(served: Sequence[Served]) -> Report | None:
    if not served:
        return None
    return {
        "updates": sum(one.updates for one in served),
        "bytes": sum(one.nbytes for one in served),
        "processes": [
            {"pid": one.pid, "updates": one.updates, "bytes": one.nbytes} for one in served
        ],
    }


def output(target: Path) -> Output:
    """Where a report is to be written."""
    return Output(target, "statistics")


def _part(process: Process, emulated: bool) -> Report:
    hidden = ("started", "forked")
    identity = {key: value for key, value in process.identity.items() if key not in hidden}
    if not emulated:
        return {key: identity[key] for key in ("pid", "argv")}
    missing = dict.fromkeys(("engine", "chosen", "because"))
    return {**missing, **identity, **_sections(process.counts)}


def _sections(counts: Mapping[str, int]) -> Report:
    """Counters as a report shows them: `h2d_bytes` under `h2d`, nanoseconds in seconds."""
    sections: Report = {"h2d": {}, "d2h": {}}
    for name in dict.fromkeys((*COUNTERS, "waited_ns", *counts)):
        count = counts.get(name, 0)
        direction, _, what = name.partition("_")
        if direction in ("h2d", "d2h"):
            sections[direction][what] = count
        elif name == "paused_ns":
            sections["emulation_s"] = count / 1e9
        elif name == "waited_ns":
            sections["waited_s"] = count / 1e9
        elif name not in (*SPECULATION, *_OF_SPECULATION, *PREFETCHING, *_OF_PREFETCHING):
            sections[name] = count
    if not set(SPECULATION).isdisjoint(counts):
        sections["speculation"] = _speculation(counts)
    if not set(PREFETCHING).isdisjoint(counts):
        sections["prefetching"] = _prefetching(counts)
    return sections


def _prefetching(counts: Mapping[str, int]) -> Report:
    values = {name.removeprefix("prefetch_"): counts.get(name, 0) for name in PREFETCHING}
    hits, misses = values.pop("hits"), values.pop("misses")
    return {
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / max(hits + misses, 1),
        **values,
        "link_transfers": counts.get("link_transfers", 0),
        "link_bytes": counts.get("link_bytes", 0),
    }


def _speculation(counts: Mapping[str, int]) -> Report:
    values = {name: counts.get(name, 0) for name in (*SPECULATION, *_OF_SPECULATION)}
    patterns = {
        name.removeprefix("hits_"): values.pop(name)
        for name in SPECULATION
        if name.startswith("hits_")
    }
    hits, misses = values.pop("hits"), values.pop("misses")
    return {
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / max(hits + misses, 1),
        "by_pattern": patterns,
        "hidden_s": values.pop("hidden_ns") / 1e9,
        **values,
    }
