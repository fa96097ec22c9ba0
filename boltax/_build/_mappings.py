"""Mappings and lists of other libraries, as Python's own: what is stored is what was trained with.

`ml_collections.ConfigDict`, OmegaConf's ``DictConfig`` and ``ListConfig``, Flax's ``FrozenDict``
and `types.MappingProxyType` are known by what they do; no library is imported.
"""

import array
import collections
import inspect
from collections.abc import Mapping, MutableSequence
from typing import Any

from boltax.errors import ConfigurationError

_OWN_SEQUENCES = (list, bytearray, array.array, collections.deque)


def is_mapping(value: object) -> bool:
    """Whether a value is a mapping, of whatever library."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, type) or hasattr(value, "shape"):  # a table of pandas has items, too
        return False
    # Not by `hasattr`: a ConfigDict has whatever attributes its user gave it.
    names = ("keys", "items", "to_dict", "__getitem__")
    return all(callable(inspect.getattr_static(type(value), name, None)) for name in names)


def plain_containers(value: Any) -> Any:
    """A value with dicts and lists in place of other mappings and sequences, at every level.

    Tuples, and whatever is no container of a configuration, stay as they are.

    Example:
        >>> from types import MappingProxyType
        >>> plain_containers({"layers": (MappingProxyType({"size": 3}),)})
        {'layers': ({'size': 3},)}
    """
    if is_mapping(value):
        return {key: plain_containers(part) for key, part in value.items()}
    if type(value) is tuple:
        return tuple(plain_containers(part) for part in value)
    is_foreign = isinstance(value, MutableSequence) and not isinstance(value, _OWN_SEQUENCES)
    if type(value) is list or is_foreign:
        return [plain_containers(part) for part in value]
    return value


def plain_mapping(value: Any, name: str, example: str) -> dict[str, Any]:
    """An argument that is a mapping, as a dict; None is an empty one.

    Args:
        value: the argument.
        name: its name.
        example: what to write in place of something else.

    Raises:
        ConfigurationError: for something else.
    """
    if value is None:
        return {}
    if not is_mapping(value):
        raise ConfigurationError(
            f"Received {name}={value!r} ({type(value).__name__}); expected a dict. Write {example}."
        )
    return plain_containers(value)
