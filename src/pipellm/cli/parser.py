"""How every sub-command's arguments are read."""

from __future__ import annotations

import argparse
from typing import NoReturn, TypeAlias

from pipellm.errors import UserError


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where a sub-command adds itself."""
