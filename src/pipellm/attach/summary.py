"""The line that `pipellm run` ends with."""

from __future__ import annotations

from pipellm.runtime.policy import Policy
from pipellm.runtime.report import Report


def summary(report: Report) -> str | None:
    """What the program copied and how, in one line; None if PipeLLM had no part in it."""
    if report["policy"] is None:
        return _provider(report)
    if not report["processes"]:
        return None
    policy = Policy.named(report["policy"])
    name = f"auto ({report['chosen']})" if report["chosen"] else policy.name
    parts = [
        f"{name}: {size(report['h2d']['bytes'])} to the device and "
        f"{size(report['d2h']['bytes'])} from it in {report['elapsed_s']:.1f} s"
    ]
    if (speculation := report.get("speculation")) is not None:
        swaps = speculation["hits"] + speculation["misses"]
        parts.append(f"{speculation['hit_rate']:.0%} of {swaps} swap-ins sealed ahead")
        parts.append(f"{speculation['hidden_s']:.2f} s of sealing hidden")
    elif (prefetching := report.get("prefetching")) is not None:
        swaps = prefetching["hits"] + prefetching["misses"]
        parts.append(f"{prefetching['hit_rate']:.0%} of {swaps} swap-ins prefetched")
    else:
        parts.append("all sealed when asked for" if policy.sealed else "nothing sealed")
    parts.append(f"{report['waited_s']:.2f} s spent in swaps")
    return "; ".join(parts)


def _provider(report: Report) -> str | None:
    provider = report["provider"]
    if provider is None:
        return None
    return (
        f"{report['gpu']} GPU: the provider sealed or opened {size(provider['bytes'])} for "
        f"{len(provider['processes'])} process(es) in {report['elapsed_s']:.1f} s"
    )


def size(nbytes: int) -> str:
    """In the largest unit, of 1000 each, that makes it a number from 1 on."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
