"""Where the demo's model lies, and making it once.

python -m examples.flexgen.model FOLDER
"""

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAME = "facebook/opt-125m"  # FlexGen's smallest configuration
_RECIPE = ("recital.py", "tokenizer.py", "weights.py")


@dataclass(frozen=True)
class Model:
    """A folder that is there completely or not at all; its name tells which recipe made it."""

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
    recipe = hashlib.sha256()
    for name in _RECIPE:
        recipe.update(Path(__file__).with_name(name).read_bytes())
    return Model(parent.resolve() / f"model-{recipe.hexdigest()[:12]}")


def made(parent: Path, report: Callable[[str], None]) -> Model:
    """The model, made if it is missing (half a gigabyte; about ten seconds)."""
    model = located(parent)
    if model.folder.exists():
        report("the model is there already")
        return model
    # Imported late: they bring torch, which a model that is there does not need.
    from examples.flexgen import tokenizer, weights

    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="making-") as name:
        unfinished = Model(Path(name) / "model")
        weights.make(unfinished.checkpoint, unfinished.weights / f"{NAME.split('/')[1]}-np", report)
        report("writing the tokenizer")
        tokenizer.make(unfinished.hub)
        try:
            unfinished.folder.rename(model.folder)
        except OSError:
            # Another process was first; its model is as good as this one.
            if not model.folder.exists():
                raise
    for outdated in parent.glob("model-*"):
        if outdated.name != model.folder.name:
            shutil.rmtree(outdated, ignore_errors=True)
    report("the model is made")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the demo's model, if it is not there yet.")
    parser.add_argument("folder", type=Path, help="where to keep it")
    made(parser.parse_args().folder, report=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
