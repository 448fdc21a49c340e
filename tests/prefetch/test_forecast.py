"""The cursor on what is foreseen."""

from __future__ import annotations

from pipellm.predict import Predictor
from pipellm.predict.ranges import Range
from pipellm.prefetch.forecast import Forecast
from pipellm.transfers import Direction, Transfer
from tests.prefetch.layer import MIB, TRANSFER
from tests.prefetch.test_planner import buffers

KEYS = buffers(10)


def asked_for(predictor: Predictor, key: Range) -> None:
    predictor.observe(Transfer(Direction.H2D, *key, key[0]))


def at(forecast: Forecast) -> Range:
    """The buffer at the cursor."""
    found = forecast.part()
    assert found is not None
    return found[1]


def learned() -> tuple[Predictor, Forecast]:
    predictor = Predictor()
    for key in KEYS * 4:
        asked_for(predictor, key)
    forecast = Forecast(predictor, TRANSFER)
    forecast.renew()
    return predictor, forecast


def test_what_is_asked_for_at_the_cursor_is_behind_it() -> None:
    _, forecast = learned()
    assert at(forecast) == KEYS[0]
    assert forecast.asked(KEYS[0])
    assert at(forecast) == KEYS[1]


def test_what_the_cursor_has_not_come_to_was_not_met() -> None:
    _, forecast = learned()
    assert not forecast.asked(KEYS[3])
    forecast.advance()
    assert forecast.asked(KEYS[0])
    assert not forecast.asked(KEYS[0])


def test_a_buffer_that_comes_round_again_waits_until_it_was_asked_for() -> None:
    predictor, forecast = learned()
    for _ in KEYS:
        forecast.advance()
    assert forecast.part() is None
    asked_for(predictor, KEYS[0])
    assert forecast.asked(KEYS[0])
    assert at(forecast) == KEYS[0]


def test_soon_is_bounded_in_bytes_and_in_swap_ins() -> None:
    _, forecast = learned()
    assert forecast.soon(3 * MIB, 100) == set(KEYS[:3])
    assert forecast.soon(100 * MIB, 2) == set(KEYS[:2])
