"""The parts of boltax that `import boltax` does not load, and ``boltax.tune`` does when asked for.

They stand in `boltax/__init__.py` as the `__getattr__` and `__dir__` of the package.
"""

import difflib
import importlib
import sys
from types import ModuleType

ON_DEMAND = ("checkpoint", "demo", "models", "parallel", "testing", "tune")


def load(name: str) -> ModuleType:
    """The part of that name, loaded now.

    Raises:
        AttributeError: when there is none.
    """
    if name in ON_DEMAND:
        return importlib.import_module(f"boltax.{name}")
    near = [] if name[:1] == "_" else difflib.get_close_matches(name, names(), 1)
    hint = f". Did you mean boltax.{near[0]}?" if near else ""
    raise AttributeError(f"module 'boltax' has no attribute {name!r}{hint}")


def names() -> list[str]:
    """The names of the package, those that are not loaded yet among them."""
    return sorted({*vars(sys.modules["boltax"]), *ON_DEMAND})
