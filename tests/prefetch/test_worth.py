"""What may be prefetched, by what it was worth before."""

from __future__ import annotations

from pipellm.prefetch import News, Planner, What
from pipellm.prefetch.worth import FIRST, Worth

TRIAL = 8 << 20


def pauses(worth: Worth, trials: int) -> list[int]:
    """Swap-ins before each of so many trials, none of which is of use."""
    found = []
    for _ in range(trials):
        worth.ordered(worth.credit)
        found.append(0)
        while not worth.credit:
            worth.swap_in()
            found[-1] += 1
        assert worth.credit == TRIAL
    return found


def test_orders_spend_and_what_was_of_use_comes_back_threefold() -> None:
    worth = Worth(TRIAL)
    worth.ordered(100)
    worth.returned(10)
    assert worth.credit == FIRST - 90
    worth.used(20)
    assert worth.credit == FIRST - 30


def test_there_is_never_more_credit_than_it_may_come_to_nor_less_than_none() -> None:
    worth = Worth(TRIAL)
    worth.used(FIRST)
    assert worth.credit == FIRST
    worth.ordered(FIRST + 1)
    assert worth.credit == 0
    worth.most = 2 * FIRST
    worth.used(FIRST)
    assert worth.credit == 2 * FIRST


def test_trials_come_ever_more_rarely_until_one_is_of_use() -> None:
    worth = Worth(TRIAL)
    assert pauses(worth, 8) == [64, 128, 256, 512, 1024, 2048, 4096, 4096]
    worth.used(1)
    assert pauses(worth, 2) == [64, 128]


def test_swap_ins_that_pass_while_there_is_credit_do_not_count() -> None:
    worth = Worth(TRIAL)
    for _ in range(63):
        worth.swap_in()
    assert pauses(worth, 1) == [64]


def test_the_credit_may_come_to_four_times_the_room() -> None:
    planner = Planner()
    planner.tell([News(What.ROOM, 0, FIRST)])
    assert planner._worth.most == 4 * FIRST
    planner.tell([News(What.ROOM, 0, 0)])
    assert planner._worth.most == 4 * FIRST
