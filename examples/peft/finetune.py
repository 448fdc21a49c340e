"""A PEFT program as a user writes it: LoRA on a base model that accelerate keeps in host memory.

    python -m examples.peft.finetune CHECKPOINT TEXT ADAPTER --steps 8

It knows nothing of PipeLLM. Prints every loss, then one line of JSON, and saves the adapter.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from examples.peft import text
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

BATCH = 2
LENGTH = 64
DEVICE = "cuda:0"


def offloaded(checkpoint: Path) -> PreTrainedModel:
    """The base model, its layers in host memory, as if the device were too small for it."""
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, device_map={"": DEVICE, "model.decoder.layers": "cpu"}
    )


def adapted(base: PreTrainedModel) -> PeftModel:
    model = get_peft_model(
        base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    # PEFT puts an adapter where its base layer is, and that is nowhere while accelerate keeps it
    # away ("meta"): such an adapter cannot be trained. These lines make it anew, on the device.
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            for linear in (*layer.lora_A.values(), *layer.lora_B.values()):
                linear.weight = nn.Parameter(torch.empty(linear.weight.shape, device=DEVICE))
            layer.reset_lora_parameters("default", init_lora_weights=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tunes an adapter.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("adapter", type=Path, help="the folder to save it in")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = adapted(offloaded(arguments.checkpoint))
    model.gradient_checkpointing_enable()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    rows = text.blocks(arguments.text, LENGTH)
    losses = []
    began = time.perf_counter()
    for step in range(arguments.steps):
        batch = rows[step * BATCH : (step + 1) * BATCH].to(DEVICE)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1}: loss {losses[-1]:.4f}", flush=True)
    seconds = time.perf_counter() - began
    model.save_pretrained(arguments.adapter)
    print(json.dumps({"losses": losses, "samples_per_second": BATCH * len(losses) / seconds}))


if __name__ == "__main__":
    main()
