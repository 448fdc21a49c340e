"""PipeLLM: seals the copies of unmodified programs to confidential GPUs ahead of time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_WHERE = {
    "UserError": "pipellm.errors",
    "allow_ahead": "pipellm.runtime.never_ahead",
    "declare_immutable": "pipellm.runtime.immutable",
    "enable": "pipellm.attach.enabling",
    "expect": "pipellm.runtime.expectation",
    "never_ahead": "pipellm.runtime.never_ahead",
    "withdraw_immutable": "pipellm.runtime.immutable",
}


def __getattr__(name: str) -> object:
    # Loaded when asked for: the planner's modules are also imported where no compiled module can be
    # (native/interpreter/interpreter.h), and importing them imports this one.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
