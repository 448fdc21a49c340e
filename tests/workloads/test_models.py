"""Models have the sizes that their names say, and parts that add up to them."""

from __future__ import annotations

import pytest

from pipellm.errors import UserError
from pipellm.workloads.models import MODELS, Model, Tensor

PARAMETERS = {
    "opt-125m": 125e6,
    "opt-1.3b": 1.3e9,
    "opt-13b": 13e9,
    "opt-30b": 30e9,
    "opt-66b": 66e9,
    "opt-175b": 175e9,
}


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: str(model.name))
def test_a_model_has_about_as_many_parameters_as_it_is_named_for(model: Model) -> None:
    assert model.parameters == pytest.approx(PARAMETERS[model.name], rel=0.02)


def test_opt_125m_has_exactly_the_parameters_of_the_published_checkpoint() -> None:
    assert Model.named("opt-125m").parameters == 125_239_296


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: str(model.name))
def test_a_part_of_a_model_times_the_parts_is_the_model(model: Model) -> None:
    for parts in (parts for parts in range(1, model.layers + 1) if model.layers % parts == 0):
        part = model.cut(parts)
        assert part.attention == model.attention
        assert part.mlp == model.mlp
        assert part.layers * part.whole == model.layers
        assert part.tokens_table.nbytes * parts == pytest.approx(
            model.tokens_table.nbytes, rel=1e-2
        )
    with pytest.raises(ValueError, match="no 7 equal parts"):
        Model.named("opt-13b").cut(7)


def test_four_bits_take_nine_sixteenths_of_a_byte() -> None:
    wide = Tensor("weight", (5120, 5120))
    data, scales = wide.four_bit
    assert data == wide.nbytes // 4
    assert scales == data // 8
    assert Tensor("odd", (65, 3)).four_bit == (192, 24)
    assert Tensor("bias", (5120,)).four_bit == (10240,)


def test_a_model_that_is_not_known_is_a_users_error() -> None:
    with pytest.raises(UserError, match="unknown model 'opt-12b'"):
        Model.named("opt-12b")
