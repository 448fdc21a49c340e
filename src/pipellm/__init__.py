"""PipeLLM: confidential GPUs at close to the speed of ordinary ones, for unmodified programs."""

from __future__ import annotations

from pipellm.attach.enabling import enable
from pipellm.errors import UserError
from pipellm.runtime.expectation import expect
from pipellm.runtime.immutable import declare_immutable, withdraw_immutable
from pipellm.runtime.never_ahead import allow_ahead, never_ahead

__version__ = "0.1.0"

__all__ = [
    "UserError",
    "__version__",
    "allow_ahead",
    "declare_immutable",
    "enable",
    "expect",
    "never_ahead",
    "withdraw_immutable",
]
