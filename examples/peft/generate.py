"""A PEFT program as a user writes it: text from a base model in host memory, and from two adapters.

    python -m examples.peft.generate CHECKPOINT ADAPTERS --words 8

It knows nothing of PipeLLM. The last line is JSON: the tokens of each way to place the base model,
and of each adapter.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from accelerate import cpu_offload, dispatch_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from peft import PeftModel

DEVICE = "cuda:0"
PROMPTS = ("PipeLLM runs", "A confidential GPU")


class Writer:
    """Generates greedily, and keeps count."""

    def __init__(self, words: int) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._words = words

    def __call__(self, model: PreTrainedModel | PeftModel, prompt: str) -> list[int]:
        ids = torch.tensor([list(prompt.encode())], device=DEVICE)
        began = time.perf_counter()
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self._words,
            do_sample=False,
        )
        self.seconds += time.perf_counter() - began
        new: list[int] = output[0, ids.shape[1] :].tolist()
        self.tokens += len(new)
        return new


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates text.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("adapters", type=Path, help="a folder with an adapter in each folder")
    parser.add_argument("--words", type=int, default=8)
    arguments = parser.parse_args()
    first, second = sorted(path.parent for path in arguments.adapters.glob("*/adapter_config.json"))
    writer = Writer(arguments.words)
    said: dict[str, list[list[int]]] = {}

    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint)
    cpu_offload(model, DEVICE)
    print("generating, all of the base model in host memory", flush=True)
    said["cpu_offload"] = [writer(model, prompt) for prompt in PROMPTS]

    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint)
    dispatch_model(model, {"": DEVICE, "model.decoder.layers": "cpu"})
    print("generating, its layers in host memory", flush=True)
    said["dispatch_model"] = [writer(model, prompt) for prompt in PROMPTS]

    base = AutoModelForCausalLM.from_pretrained(arguments.checkpoint)
    model = PeftModel.from_pretrained(base, first, "first")
    model.load_adapter(second, "second")
    dispatch_model(model, {"": DEVICE, "base_model.model.model.decoder.layers": "cpu"})
    for prompt in PROMPTS:
        for adapter in ("first", "second"):
            model.set_adapter(adapter)
            print(f"generating with the {adapter} adapter", flush=True)
            said.setdefault(adapter, []).append(writer(model, prompt))
    print(json.dumps({"tokens": said, "tokens_per_second": writer.tokens / writer.seconds}))


if __name__ == "__main__":
    main()
