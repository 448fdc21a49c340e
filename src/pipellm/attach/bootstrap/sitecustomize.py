"""Runs at the start of every Python process below `pipellm run`: attaches PipeLLM to torch.

The launcher puts this file's folder at the head of PYTHONPATH, which child processes inherit. It
may be run by a Python that is not the launcher's, so it needs nothing but the standard library. A
process that never imports torch pays for one more entry in `sys.meta_path`.

The folder stays on `sys.path`: programs build their children's PYTHONPATH from it.
"""

import os
import sys

TYPE_CHECKING = False  # `typing` would double the time that this file takes
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, NoReturn


class TorchFinder:
    """Lets the other finders find torch, and attaches PipeLLM right after its module body."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != "torch":
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    self._follow(spec.loader)
                return spec
        return None

    def _follow(self, loader: "Any") -> None:
        # On the loader object itself, not in a wrapper around it: whoever looks at the spec or at
        # torch.__loader__ finds the type that belongs there.
        execute: Callable[[ModuleType], None] = loader.exec_module
        hidden = "exec_module" in vars(loader)

        def exec_module(module: "ModuleType") -> None:
            if hidden:
                loader.exec_module = execute
            else:
                del loader.exec_module
            execute(module)
            attach()
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        loader.exec_module = exec_module


def attach() -> None:
    """Enables PipeLLM in this process or ends it: a program never runs unprotected unnoticed.

    Does nothing when called again, as another import hook that looks through ours may bring about.
    """
    try:
        from pipellm.attach.enabling import enable_from_environment
        from pipellm.errors import UserError
    except ImportError as error:
        if error.name == "pipellm":
            end_process(
                "the program imports torch under " + sys.executable + ", which has no pipellm; "
                "install it there, or run the program with the Python that has it"
            )
        end_process("cannot be imported under " + sys.executable + ": " + str(error))
    try:
        enable_from_environment()
    except UserError as error:
        end_process(str(error))
    except Exception:
        import traceback

        traceback.print_exc()
        end_process("could not attach to torch; this is a fault of PipeLLM's", 1)


def end_process(message: str, status: int = 2) -> "NoReturn":
    from contextlib import suppress

    # At once, because SystemExit would end no more than a thread, or be caught around the import.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None, broken, closed
            stream.flush()
    with suppress(OSError):
        os.write(2, ("pipellm: " + message + "\n").encode("utf-8", "backslashreplace"))
    with suppress(KeyError, OSError):  # tells the launcher that the user has been told
        open(os.path.join(os.environ["PIPELLM_STATS_DIR"], "refused"), "w").close()
    os._exit(status)


def run_existing_sitecustomize() -> None:
    """Runs the sitecustomize that this one hides, as if it had been imported itself."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.abspath(place) for place in sys.path]
    if here not in places:
        return
    further_down = [place for place in places[places.index(here) :] if place != here]
    spec = PathFinder.find_spec("sitecustomize", further_down)
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if "PIPELLM_GPU" in os.environ:
    if "torch" in sys.modules:  # imported by a .pth file
        attach()
    else:
        sys.meta_path.insert(0, TorchFinder())
run_existing_sitecustomize()
