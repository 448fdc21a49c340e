"""A PEFT program as a user writes it: LoRA with transformers' Trainer and DeepSpeed's ZeRO-3, which
keeps the parameters in pinned host memory.

    torchrun --standalone --no-python python -m examples.peft.finetune_zero CHECKPOINT TEXT FOLDER

It knows nothing of PipeLLM. The last line is JSON.
"""

import argparse
import json
from pathlib import Path

import deepspeed
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

from examples.peft import text
from examples.peft.finetune import BATCH, LENGTH
from peft import LoraConfig, get_peft_model

ZERO = {
    "bf16": {"enabled": "auto"},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "zero_optimization": {
        "stage": 3,
        "offload_param": {"device": "cpu", "pin_memory": True},
        # DeepSpeed's defaults suit models of billions of parameters: this one's would stay on the
        # device.
        "stage3_max_live_parameters": 2_000_000,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 500_000,
        "reduce_bucket_size": 1_000_000,
    },
}


class Rows(Dataset[dict[str, Tensor]]):
    """The text, as a Trainer wants it."""

    def __init__(self, file: Path) -> None:
        self._rows = text.blocks(file, LENGTH)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._rows[index], "labels": self._rows[index]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tunes an adapter.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path, help="where the Trainer puts what it makes")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    set_seed(0)
    # DeepSpeed would take NCCL for a GPU, which a CPU build of PyTorch does not have.
    deepspeed.init_distributed("gloo")
    training = TrainingArguments(
        str(arguments.folder),
        deepspeed=ZERO,
        bf16=True,
        per_device_train_batch_size=BATCH,
        max_steps=arguments.steps,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    base = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.bfloat16)
    model = get_peft_model(
        base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    model.enable_input_require_grads()
    trainer = Trainer(model, training, train_dataset=Rows(arguments.text))
    result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    speed = result.metrics["train_samples_per_second"]
    print(json.dumps({"losses": losses, "samples_per_second": speed}))


if __name__ == "__main__":
    main()
