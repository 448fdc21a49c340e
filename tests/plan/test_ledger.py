"""The ledger counts every message once and never past the last."""

from __future__ import annotations

import pytest

from pipellm.plan.ledger import IVError, Ledger


def test_the_first_message_carries_one_because_the_counter_is_incremented_before_it() -> None:
    assert Ledger().next == 1


def test_ivs_are_consecutive() -> None:
    ledger = Ledger()
    ledger.send(1, 3)
    assert ledger.next == 4
    for wrong in (3, 5):
        with pytest.raises(IVError, match="carries IV 4"):
            ledger.send(wrong, 1)
    assert ledger.next == 4


def test_the_counter_never_wraps() -> None:
    ledger = Ledger(last=10)
    ledger.send(1, 9)
    with pytest.raises(IVError, match="only 1 IVs left"):
        ledger.send(10, 2)
    ledger.send(10, 1)
    assert ledger.remaining == 0
    ledger.restart()
    assert (ledger.next, ledger.remaining) == (1, 10)
