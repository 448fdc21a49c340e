"""A small data set of real text: what the installed Python packages say of themselves.

python -m examples.peft.text FILE
"""

import argparse
from importlib.metadata import distributions
from pathlib import Path

import torch
from torch import Tensor

VOCABULARY_SIZE = 256  # a token is a byte
_BYTES = 256 * 1024
_SHORTEST = 2000  # characters; below that it is a badge and a link


def collected() -> bytes:
    """The descriptions of the installed packages, by name, up to 256 KiB."""
    descriptions: dict[str, str] = {}
    for distribution in distributions():
        described = distribution.metadata.json
        text = str(described.get("description", ""))
        if len(text) >= _SHORTEST:
            descriptions[str(described["name"]).lower()] = text
    text = "\n\n".join(descriptions[name] for name in sorted(descriptions))
    return text.encode("utf-8")[:_BYTES]


def blocks(file: Path, length: int) -> Tensor:
    """The text as rows of `length` tokens; what does not fill a row is left out."""
    content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8).long()
    return content[: len(content) // length * length].view(-1, length)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the data set.")
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_bytes(collected())


if __name__ == "__main__":
    main()
