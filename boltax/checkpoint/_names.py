"""Functions and classes by name: the one place where a name out of a file becomes an object.

A name is ``"<module>:<attribute>"``, where the module is one of a fixed list of libraries or
``trainer``, the module of the trainer's own class. The attribute is looked up among the module's
names; nothing in the file can import, call, or follow a dotted path. An object is stored only if it
can be found again in this way.
"""

import functools
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from boltax._base._optional import import_optional
from boltax.errors import CheckpointError
from boltax.models._functional import Functional

LIBRARIES = (  # in the order of search, so that `nn.relu` is called flax.linen:relu
    "flax.linen",
    "flax.linen.initializers",
    "flax.nnx",
    "jax.nn",
    "jax.nn.initializers",
    "jax.numpy",
    "jax.lax",
    "optax",
    "optax.contrib",
    "optax.schedules",
    "jax",
    "equinox.nn",
)
_NOBODYS = ("boltax.trainer", "boltax._build._constructed", "builtins")
"""Modules of a trainer's base classes that are not the user's."""
_ROOTS = ("flax", "jax", "optax", "equinox")
# Library functions that read files or call other code, and so are nobody's hyperparameters.
_REFUSED = frozenset(
    {"load", "fromfile", "frompyfunc", "pure_callback", "make_array_from_callback"}
)


class Lookup:
    """Finds names for objects, and objects for names.

    Args:
        trainer: the trainer's class. Its module and those of its base classes, other than boltax's,
            are searched for classes and functions of the user's project, and for model classes from
            anywhere.

    Example:
        >>> import flax.linen as nn
        >>> Lookup(None).name_of(nn.relu)
        'flax.linen:relu'
        >>> Lookup(None).find("flax.linen:relu") is nn.relu
        True
    """

    def __init__(self, trainer: type | None) -> None:
        bases = () if trainer is None else trainer.__mro__
        names = [base.__module__ for base in bases if base.__module__ not in _NOBODYS]
        self._own = [sys.modules[name] for name in dict.fromkeys(names) if name in sys.modules]

    @property
    def own(self) -> str:
        """The trainer's module, for messages."""
        return self._own[0].__name__ if self._own else "(none)"

    def name_of(self, value: object) -> str | None:
        """The name under which `find` gives exactly this object, or None when there is none.

        Args:
            value: a function or class, or a `Functional`.
        """
        places: list[tuple[str, ModuleType]] = []
        if _is_library_value(
            value
        ):  # a library that nobody has imported yet is not where it is from
            places += [(name, sys.modules[name]) for name in LIBRARIES if name in sys.modules]
        if self._is_own_value(value):
            places += [("trainer", module) for module in self._own]
        for place, module in places:
            for attribute in _attributes(module, value):
                if self._look_up(place, attribute) is value:
                    return f"{place}:{attribute}"
        return None

    def find(self, name: object) -> Any:
        """The object of a name.

        Args:
            name: as `name_of` gives it. It may come from anybody.

        Raises:
            CheckpointError: when the name is not one that `name_of` could have given.
        """
        module, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
        value = self._look_up(module, attribute)
        if value is not None:
            return value
        raise CheckpointError(
            f"Received the name {str(name)[:80]!r} in a stored hyperparameter; expected a function "
            f"or class of jax, flax or optax, or one that the trainer's module {self.own!r} has at "
            "its top level. Define or import it there under that name, or hand the argument to "
            "load_from_checkpoint."
        )

    def _look_up(self, place: str, attribute: str) -> Any:
        """The object of a name, or None."""
        # `vars`, because a module's __getattr__ could run code, or warn.
        if not attribute.isidentifier() or attribute.startswith("__"):
            return None
        if place in LIBRARIES:
            value = vars(_library(place)).get(attribute)
            return value if _is_library_value(value) and attribute not in _REFUSED else None
        modules = self._own if place == "trainer" else []
        values = [vars(module).get(attribute) for module in modules]
        return next((value for value in values if self._is_own_value(value)), None)

    def _is_own_value(self, value: object) -> bool:
        if isinstance(value, Functional):
            return True
        if not callable(value) or not hasattr(value, "__name__"):
            return False
        if isinstance(value, type) and any(_is_model_base(base) for base in value.__mro__):
            return True
        module = getattr(value, "__module__", None)
        roots = {_root(own.__name__) for own in self._own}
        return isinstance(module, str) and (_root(module) in roots or _is_project(module))


def _library(name: str) -> ModuleType:
    if name.startswith("equinox"):
        return import_optional(name, extra="equinox", purpose="the model of this run")
    return importlib.import_module(name)


def _is_library_value(value: object) -> bool:
    if isinstance(value, functools.partial):  # optax.nadam is one
        value = value.func
    module = getattr(value, "__module__", None)
    return callable(value) and isinstance(module, str) and _root(module) in _ROOTS


def _attributes(module: ModuleType, value: object) -> list[str]:
    """The names that a module has for an object; its own name first, other than aliases."""
    own = getattr(value, "__name__", None)
    names = [name for name, other in vars(module).items() if other is value]
    return sorted(names, key=lambda name: name != own)


def _is_model_base(base: type) -> bool:
    return base.__name__ == "Module" and _root(base.__module__) in ("flax", "equinox", "haiku")


def _is_project(module: str) -> bool:
    """Whether a module is the user's own code: neither Python's, nor an installed package."""
    # `subprocess.run` or `torch.load`, imported by chance, would do whatever a file tells them.
    if _root(module) in sys.stdlib_module_names or module not in sys.modules:
        return False
    try:
        file = inspect.getfile(sys.modules[module])
    except TypeError:  # a module without a file, such as __main__ in a notebook
        return module == "__main__"
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _root(module: str) -> str:
    return module.partition(".")[0]
