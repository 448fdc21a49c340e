"""What the model says without FlexGen, device and PipeLLM: transformers, CPU, float32.

    python -m examples.flexgen.reference CHECKPOINT WORDS

prints one word per line.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import OPTForCausalLM

from examples.flexgen import recital


class _Printer:
    """A streamer, as `generate` calls it: prints every new token's word as soon as it is known."""

    def __init__(self) -> None:
        self._prompt_seen = False

    def put(self, value: Tensor) -> None:
        if self._prompt_seen:
            print(recital.vocabulary()[int(value)], flush=True)
        self._prompt_seen = True

    def end(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates the demo's text on the CPU.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("words", type=int)
    arguments = parser.parse_args()
    model = OPTForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
    prompt = torch.tensor([recital.token_ids(recital.PROMPT)])
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=arguments.words,
        streamer=_Printer(),
    )


if __name__ == "__main__":
    main()
