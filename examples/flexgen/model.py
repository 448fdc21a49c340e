"""Where the demo's model lies, and making it once.

python -m examples.flexgen.model FOLDER
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples import recipe

NAME = "facebook/opt-125m"  # FlexGen's smallest configuration
_RECIPE = ("recital.py", "tokenizer.py", "weights.py")


@dataclass(frozen=True)
class Model:
    """A folder, as `examples.recipe` makes it."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The weights as transformers reads them."""
        return self.folder / "checkpoint"

    @property
    def weights(self) -> Path:
        """What FlexGen's `--path` wants: a folder with one folder of .npy files per model."""
        return self.folder / "weights"

    @property
    def hub(self) -> Path:
        """What HF_HUB_CACHE has to be, so that FlexGen finds its tokenizer."""
        return self.folder / "hub"


def located(parent: Path) -> Model:
    """Where the model of the present recipe belongs under `parent`, made or not."""
    here = Path(__file__).parent
    return Model(recipe.located(parent, [here / name for name in _RECIPE]))


def made(parent: Path, report: Callable[[str], None]) -> Model:
    """The model, made if it is missing (half a gigabyte; about ten seconds)."""
    model = located(parent)
    fresh = recipe.made(model.folder, lambda folder: _make(Model(folder), report))
    report("the model is made" if fresh else "the model is there already")
    return model


def _make(model: Model, report: Callable[[str], None]) -> None:
    # Imported late: they bring torch, which a model that is there does not need.
    from examples.flexgen import tokenizer, weights

    weights.make(model.checkpoint, model.weights / f"{NAME.split('/')[1]}-np", report)
    report("writing the tokenizer")
    tokenizer.make(model.hub)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the demo's model, if it is not there yet.")
    parser.add_argument("folder", type=Path, help="where to keep it")
    made(parser.parse_args().folder, report=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
