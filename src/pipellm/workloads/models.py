"""The OPT models: their shapes, and the bytes and operations that follow from them.

Shapes are those of the models' published configurations (Zhang et al., arXiv 2205.01068, table 1).
All of them have 2048 positions, a feed-forward layer four times as wide as the hidden one, biases
everywhere, and one embedding matrix for both ends. Numbers are 16 bits wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from pipellm.errors import choice

HALF = 2
"""Bytes of one 16-bit number."""

POSITIONS = 2048
_POSITION_OFFSET = 2  # OPT's table of positions begins with two that stand for padding
_GROUP = 64  # numbers that share a scale and a zero in FlexGen's 4-bit format


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter of a model."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """In 16 bits."""
        return prod(self.shape) * HALF

    @property
    def four_bit(self) -> tuple[int, ...]:
        """The sizes of the buffers that hold it in FlexGen's 4-bit format.

        Matrices are quantised in groups of 64 along the first dimension: half a byte for each
        number, and 4 bytes for each group. Vectors stay as they are.
        """
        if len(self.shape) < 2:
            return (self.nbytes,)
        groups = -(-self.shape[0] // _GROUP) * prod(self.shape[1:])
        return groups * _GROUP // 2, groups * 2 * HALF


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer of OPT's family."""

    name: str
    layers: int
    hidden: int
    heads: int
    vocabulary: int = 50272
    whole: int = 1
    """How many times larger the model is that this one is cut from."""

    @staticmethod
    def named(name: str) -> Model:
        """The model called `name`; raises UserError if there is none."""
        return choice("model", name, MODELS)

    def cut(self, parts: int) -> Model:
        """One of `parts` of it: so many fewer layers, each as large as before, and words.

        A layer is like the next, so what a pass costs the link and the chip goes down by the same
        factor, `whole`. Raises ValueError where the layers cannot be divided so.
        """
        if parts < 1 or self.layers % parts:
            raise ValueError(f"{self.layers} layers have no {parts} equal parts")
        words = -(-self.vocabulary // parts)
        return replace(
            self, layers=self.layers // parts, vocabulary=words, whole=self.whole * parts
        )

    @property
    def ffn(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.hidden

    @property
    def tokens_table(self) -> Tensor:
        """The embedding matrix, which is the output's too."""
        return Tensor("embed_tokens.weight", (self.vocabulary, self.hidden))

    @property
    def positions_table(self) -> Tensor:
        """The embedding of positions."""
        return Tensor("embed_positions.weight", (POSITIONS + _POSITION_OFFSET, self.hidden))

    @property
    def final_norm(self) -> tuple[Tensor, ...]:
        """The normalisation before the output."""
        return self._norm("final_layer_norm")

    @property
    def attention(self) -> tuple[Tensor, ...]:
        """The parameters of one layer's attention, with the normalisation before it."""
        square = (self.hidden, self.hidden)
        projections = [
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            for tensor in self._linear(f"self_attn.{name}", square)
        ]
        return (*projections, *self._norm("self_attn_layer_norm"))

    @property
    def mlp(self) -> tuple[Tensor, ...]:
        """The parameters of one layer's feed-forward part, with the normalisation before it."""
        return (
            *self._linear("fc1", (self.ffn, self.hidden)),
            *self._linear("fc2", (self.hidden, self.ffn)),
            *self._norm("final_layer_norm"),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All parameters, the shared embedding once."""
        layer = (*self.attention, *self.mlp)
        return (self.tokens_table, self.positions_table, *(layer * self.layers), *self.final_norm)

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """In 16 bits."""
        return self.parameters * HALF

    @property
    def kv_bytes(self) -> int:
        """What one token of context takes, in one layer: a key and a value."""
        return 2 * self.hidden * HALF

    def attention_flops(self, tokens: int, context: float) -> float:
        """One layer's attention over `tokens` new tokens that each see `context` on average."""
        return tokens * (8.0 * self.hidden**2 + 4.0 * self.hidden * context)

    def mlp_flops(self, tokens: int) -> float:
        """One layer's feed-forward part for `tokens` tokens."""
        return tokens * 16.0 * self.hidden**2

    def output_flops(self, tokens: int) -> float:
        """The output's projection for `tokens` tokens."""
        return tokens * 2.0 * self.vocabulary * self.hidden

    def _linear(self, name: str, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return Tensor(f"{name}.weight", shape), Tensor(f"{name}.bias", shape[:1])

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        shape = (self.hidden,)
        return Tensor(f"{name}.weight", shape), Tensor(f"{name}.bias", shape)


MODELS = {
    model.name: model
    for model in (
        Model("opt-125m", 12, 768, 12),
        Model("opt-1.3b", 24, 2048, 32),
        Model("opt-13b", 40, 5120, 40),
        Model("opt-30b", 48, 7168, 56),
        Model("opt-66b", 64, 9216, 72),
        Model("opt-175b", 96, 12288, 96),
    )
}
