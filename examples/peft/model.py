"""What the programs work on, made once: an OPT checkpoint, two adapters, a text.

python -m examples.peft.model FOLDER
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from examples import recipe

LAYERS = 6
WIDTH = 512
POSITIONS = 256
ADAPTERS = ("first", "second")
TARGETS = ["q_proj", "v_proj"]  # what the adapters adapt, as LoRA's authors did
RANK = 8
_RECIPE = ("text.py", "model.py")


@dataclass(frozen=True)
class Model:
    """A folder, as `examples.recipe` makes it."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The base model in bfloat16, as `from_pretrained` reads it."""
        return self.folder / "checkpoint"

    @property
    def adapters(self) -> Path:
        """A folder with one folder for each of ADAPTERS."""
        return self.folder / "adapters"

    @property
    def text(self) -> Path:
        return self.folder / "text"


def located(parent: Path) -> Model:
    """Where the model of the present recipe belongs under `parent`, made or not."""
    here = Path(__file__).parent
    return Model(recipe.located(parent, [here / name for name in _RECIPE]))


def made(parent: Path) -> Model:
    """The model, made if it is missing (40 MB; a few seconds)."""
    model = located(parent)
    recipe.made(model.folder, lambda folder: _make(Model(folder)))
    return model


def _make(model: Model) -> None:
    # Imported late: they bring torch, which a model that is there does not need.
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    from examples.peft import text
    from peft import LoraConfig, get_peft_model

    model.text.write_bytes(text.collected())
    torch.manual_seed(0)
    base = OPTForCausalLM(
        OPTConfig(
            vocab_size=text.VOCABULARY_SIZE,
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=8,
            ffn_dim=4 * WIDTH,
            max_position_embeddings=POSITIONS,
            # Any byte may be text.
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    ).to(torch.bfloat16)
    base.save_pretrained(model.checkpoint)
    # Not the usual first state, which changes nothing: these two are heard in every token.
    lora = LoraConfig(
        r=RANK, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(base, lora, adapter_name=ADAPTERS[0])
    for name in ADAPTERS[1:]:
        adapted.add_adapter(name, lora)
    for name in ADAPTERS:
        adapted.save_pretrained(model.adapters, selected_adapters=[name])


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the programs' model, if it is not there.")
    parser.add_argument("folder", type=Path, help="where to keep it")
    made(parser.parse_args().folder)


if __name__ == "__main__":
    main()
