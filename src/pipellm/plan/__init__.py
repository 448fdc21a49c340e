"""Pure: keeps the IVs, and decides what to seal, when to send it and what to give up."""

from pipellm.plan.actions import (
    Action,
    Commit,
    Defer,
    Nop,
    Open,
    Relinquish,
    SealNow,
    Speculate,
    Why,
)
from pipellm.plan.ledger import IVError
from pipellm.plan.planner import Planner
from pipellm.plan.rules import PAPER, SERIAL, Costs, Rules
from pipellm.plan.tally import Tally

__all__ = [
    "PAPER",
    "SERIAL",
    "Action",
    "Commit",
    "Costs",
    "Defer",
    "IVError",
    "Nop",
    "Open",
    "Planner",
    "Relinquish",
    "Rules",
    "SealNow",
    "Speculate",
    "Tally",
    "Why",
]
