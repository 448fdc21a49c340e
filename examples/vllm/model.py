"""A small OPT of random weights and a tokenizer for it, made once.

python -m examples.vllm.model FOLDER

Random weights of this size make every token depend on all before it: a block of the KV cache that
comes back wrong changes what is generated. And they decide clearly between the likeliest token and
the next, so that the order in which requests are batched does not.
"""

import argparse
from pathlib import Path

from examples import recipe

LAYERS = 12
WIDTH = 256
HEADS = 4
POSITIONS = 1024
VOCABULARY = 512
BLOCK = 32  # tokens; vLLM's CPU kernels want a multiple of 32
BLOCK_BYTES = 2 * LAYERS * WIDTH * 4 * BLOCK
"""A block of the KV cache, keys and values of all layers in float32: 768 KiB."""

_SPREAD = 0.08  # of the weights; the usual 0.02 would repeat one token for ever


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
    torch.manual_seed(0)
    OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            ffn_dim=4 * WIDTH,
            max_position_embeddings=POSITIONS,
            init_std=_SPREAD,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).to(torch.float32).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the model, if it is not there yet.")
    parser.add_argument("folder", type=Path, help="where to keep it")
    print(made(parser.parse_args().folder))


if __name__ == "__main__":
    main()
