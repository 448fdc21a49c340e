"""Random OPT-125M weights that recite a text, for FlexGen and for transformers.

Every parameter is random except one: `fc2` of the last layer gets an addition of minimum norm,
solved by least squares, that pulls the final hidden state at each position of the text towards the
embedding of the next word. The pull is only as strong as that word needs to win by `LEAD`, so the
text still depends on everything before it.

LEAD is in standard deviations of the logits, and has two sides. It is large beside rounding: on
these weights float16 moves no logit by more than 0.01 of them, and even bfloat16, eight times
coarser, changes no word; so kernels, CPUs and numbers of threads do not. And it is small beside
damage: if the rows of one weight matrix are rotated by one, other words win for 70 of the 74.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from examples.flexgen import recital

LEAD = 0.25
TOLERANCE = 0.05
SEED = 2411

# Gain of a linear layer on inputs of unit variance. Two makes the layers outweigh the embedding of
# the current word, so that the model does not merely repeat it.
GAIN = 2.0
SMALL = 0.5  # standard deviation of biases and of the norms' gains, so that these matter too


def make(checkpoint: Path, numpy_folder: Path, report: Callable[[str], None]) -> None:
    """Writes the model as a transformers checkpoint and as FlexGen's one .npy file per tensor.

    Both folders are created. All values are exact in float16. RuntimeError if the finished model
    does not recite its text with the intended lead: a broken recipe, never a user's mistake.
    """
    report("drawing random weights")
    model = _random_model()
    report("planting the text")
    _plant(model)
    _check(model)
    report("writing the checkpoint")
    model.half().save_pretrained(checkpoint)
    report("writing FlexGen's files")
    _save_for_flexgen(model, numpy_folder)


def _random_model() -> OPTForCausalLM:
    # transformers' defaults are OPT-125M's shapes.
    config = OPTConfig(
        vocab_size=recital.VOCABULARY_SIZE,
        bos_token_id=recital.SPECIAL_TOKENS.index(recital.START),
        pad_token_id=recital.SPECIAL_TOKENS.index(recital.PADDING),
        eos_token_id=recital.SPECIAL_TOKENS.index(recital.END),
    )
    model = OPTForCausalLM(config).eval().requires_grad_(False)
    random = np.random.default_rng(SEED)
    for name, parameter in model.named_parameters():
        values = random.standard_normal(tuple(parameter.shape), dtype=np.float32)
        if "embed" in name:
            scaled = values
        elif parameter.dim() == 2:
            scaled = values * np.float32(GAIN / parameter.shape[1] ** 0.5)
        elif name.endswith("norm.weight"):
            scaled = 1 + np.float32(SMALL) * values
        else:
            scaled = np.float32(SMALL) * values
        parameter.copy_(_half_exact(torch.from_numpy(scaled)))
    # A special token is never printed; with a zero embedding it can never be the best one either.
    model.get_input_embeddings().weight[: len(recital.SPECIAL_TOKENS)] = 0
    return model


def _half_exact(values: Tensor) -> Tensor:
    return values.half().float()


def _text() -> tuple[Tensor, Tensor, slice]:
    """The token ids of the whole text, the ids to be predicted, and the positions that predict."""
    prompt = recital.token_ids(recital.PROMPT)
    following = recital.token_ids(recital.CONTINUATION)
    whole = torch.tensor([prompt + following])
    return whole, torch.tensor(following), slice(len(prompt) - 1, whole.shape[1] - 1)


def _plant(model: OPTForCausalLM) -> None:
    whole, following, positions = _text()
    decoder = model.model.decoder
    fc2, norm = decoder.layers[-1].fc2, decoder.final_layer_norm
    seen: dict[str, Tensor] = {}
    hooks = [
        fc2.register_forward_pre_hook(lambda _, inputs: seen.update(active=inputs[0])),
        norm.register_forward_pre_hook(lambda _, inputs: seen.update(hidden=inputs[0])),
    ]
    model(whole)
    for hook in hooks:
        hook.remove()
    active = seen["active"].reshape(-1, fc2.in_features)[positions].double()
    hidden = seen["hidden"].reshape(-1, fc2.out_features)[positions]

    direction = model.get_input_embeddings().weight[following]
    weakest = torch.zeros(len(following), 1)
    strongest = torch.full_like(weakest, 2 * float(hidden.std()))
    for _ in range(20):  # bisection, every position by itself: the lead grows with the pull
        pull = (weakest + strongest) / 2
        logits = model.lm_head(norm(hidden + pull * direction))
        enough = _lead(logits, following)[:, None] >= LEAD
        weakest, strongest = pull.where(~enough, weakest), pull.where(enough, strongest)

    # The positions are fewer than fc2's inputs, so the addition of minimum norm meets all of them.
    addition = torch.linalg.pinv(active) @ (strongest * direction).double()
    fc2.weight.copy_(_half_exact(fc2.weight + addition.T.float()))


def _lead(logits: Tensor, tokens: Tensor) -> Tensor:
    """By how much `tokens` beat the best other token, in standard deviations of the logits."""
    chosen = logits.gather(1, tokens[:, None])
    others = logits.scatter(1, tokens[:, None], float("-inf"))
    return (chosen[:, 0] - others.max(dim=1).values) / logits.std(dim=1)


def _check(model: OPTForCausalLM) -> None:
    whole, following, positions = _text()
    lead = float(_lead(model(whole).logits[0, positions], following).min())
    if abs(lead - LEAD) > TOLERANCE:
        raise RuntimeError(f"the model's words lead by {lead:.3f}, not by {LEAD}")


def _save_for_flexgen(model: OPTForCausalLM, folder: Path) -> None:
    # The names of FlexGen's own converter (flexgen.opt_config.download_opt_weights).
    folder.mkdir(parents=True)
    for name, parameter in model.model.named_parameters():
        flexgen_name = name.replace("decoder.final_layer_norm", "decoder.layer_norm")
        with open(folder / flexgen_name, "wb") as file:
            np.save(file, parameter.numpy())
