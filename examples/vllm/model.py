"""A small OPT whose weights are set by hand to repeat what it was told, and a tokenizer for it.

python -m examples.vllm.model FOLDER

The likeliest next token is the one that stood PERIOD tokens before: every layer finds that place by
its position and brings the token from there. So each answer depends on what the KV cache holds, and
a block that comes back wrong changes what is generated. And the likeliest token is so by far: the
order in which requests are batched, which changes the last bits of a bfloat16, decides nothing.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from examples import recipe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import OPTForCausalLM

LAYERS = 12
WIDTH = 256
HEADS = 4
POSITIONS = 1024
VOCABULARY = 512
PERIOD = 96
BLOCK = 128  # tokens: what a CPU build of vLLM takes by default
BLOCK_BYTES = 2 * LAYERS * WIDTH * 2 * BLOCK
"""A block of the KV cache, keys and values of all layers in bfloat16: 1.5 MiB."""

# Where things lie in the state of a token: what it is, what comes next, where it stands.
_CODE = 64
_TOKEN, _NEXT, _PLACE = slice(0, 64), slice(64, 128), slice(128, 256)
_SHARPNESS = 3.5  # of the attention to one place
_STEP = 0.1  # what a layer adds to what comes next
_CERTAINTY = 0.08  # small enough for sampling to choose
_DIFFERENCES = 16  # between the codes of partners


def answer(said: Sequence[int], length: int, adapted: bool = False) -> tuple[int, ...]:
    """What the model says next, where the likeliest token is taken; `said` is PERIOD or longer.

    `adapted`: with the adapter, which says a token's partner (0 and 1, 2 and 3, ...) in its place.
    """
    tokens = list(said)
    for _ in range(length):
        tokens.append(tokens[-PERIOD] ^ adapted)
    return tuple(tokens[len(said) :])


def located(parent: Path) -> Path:
    """Where the model of the present recipe belongs under `parent`, made or not."""
    return recipe.located(parent, [Path(__file__)])


def made(parent: Path) -> Path:
    """The model as `vllm serve` wants it, made if it is missing (40 MB; a few seconds)."""
    folder = located(parent)
    recipe.made(folder, _make)
    return folder


def _make(folder: Path) -> None:
    # Imported late: they bring torch, which a model that is there does not need.
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        [], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            ffn_dim=WIDTH,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    with torch.no_grad():
        _set_weights(model)
    model.save_pretrained(folder)


def _set_weights(model: "OPTForCausalLM") -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(VOCABULARY // 2, _CODE, generator=generator).sign()
    codes = torch.stack([codes, codes * _partner()], 1).flatten(0, 1)
    frequencies = math.pi * torch.rand(_CODE, generator=generator)
    for name, parameter in model.named_parameters():
        if "layer_norm" not in name:
            parameter.zero_()
    decoder = model.model.decoder
    decoder.embed_tokens.weight[:, _TOKEN] = codes
    model.lm_head.weight[:, _NEXT] = _CERTAINTY * codes
    angles = torch.arange(POSITIONS)[:, None] * frequencies
    first = decoder.embed_positions.offset  # OPT numbers positions from here
    decoder.embed_positions.weight[first:, _PLACE] = torch.cat([angles.cos(), angles.sin()], 1)

    # A head compares places by half of the frequencies; it is as wide as a token's code.
    half = WIDTH // HEADS // 2
    back = (PERIOD - 1) * frequencies  # the query turns its place back: it is for the next token
    for layer in decoder.layers:
        attention = layer.self_attn
        for head in range(HEADS):
            rows = torch.arange(head * 2 * half, (head + 1) * 2 * half)
            used = torch.arange(half) + half * (head // 2)
            cosines, sines = _PLACE.start + used, _PLACE.start + _CODE + used
            x, y = rows[:half], rows[half:]
            attention.k_proj.weight[x, cosines] = _SHARPNESS
            attention.k_proj.weight[y, sines] = _SHARPNESS
            attention.q_proj.weight[x, cosines] = _SHARPNESS * back[used].cos()
            attention.q_proj.weight[x, sines] = _SHARPNESS * back[used].sin()
            attention.q_proj.weight[y, sines] = _SHARPNESS * back[used].cos()
            attention.q_proj.weight[y, cosines] = -_SHARPNESS * back[used].sin()
            attention.v_proj.weight[rows, _TOKEN.start + torch.arange(_CODE)] = 1.0
            attention.out_proj.weight[_NEXT.start + torch.arange(_CODE), rows] = _STEP / HEADS


def adapter(model: Path, folder: Path) -> None:
    """Makes a LoRA adapter, for `model`, that brings the partner of the token that stood there."""
    from peft import LoraConfig, get_peft_model
    from transformers import OPTForCausalLM

    configuration = LoraConfig(
        r=_DIFFERENCES, lora_alpha=_DIFFERENCES, target_modules=["out_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(OPTForCausalLM.from_pretrained(model), configuration)
    for layer in adapted.base_model.model.model.decoder.layers:
        projection = layer.self_attn.out_proj
        changed = range(_NEXT.start, _NEXT.start + _DIFFERENCES)
        projection.lora_A["default"].weight.data = projection.weight.data[changed].clone()
        projection.lora_B["default"].weight.data.zero_()
        projection.lora_B["default"].weight.data[changed, range(_DIFFERENCES)] = -2.0
    adapted.save_pretrained(folder)


def _partner() -> "Tensor":
    """The signs by which the codes of two partners differ."""
    import torch

    signs = torch.ones(_CODE)
    signs[:_DIFFERENCES] = -1
    return signs


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the model, if it is not there yet.")
    parser.add_argument("folder", type=Path, help="where to keep it")
    print(made(parser.parse_args().folder))


if __name__ == "__main__":
    main()
