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
_METHODS = ("keys", "items", "__getitem__")
_OF_TABLES = ("shape", "dtype")
"""A table of pandas has items, too."""


def is_mapping(value: object) -> bool:
    """Whether a value is a mapping, of whatever library."""
    if isinstance(value, Mapping):
        return True
    # Of its class, not of itself: a ConfigDict has whatever attributes its user gave it.
    has = {n: inspect.getattr_static(type(value), n, None) for n in (*_METHODS, *_OF_TABLES)}
    is_table = any(has[name] is not None for name in _OF_TABLES)
    return not isinstance(value, type) and not is_table and all(callable(has[n]) for n in _METHODS)


def container_of(value: Any) -> Mapping[Any, Any] | list[Any] | None:
    """The content of a container as a mapping or a list of Python, for containers of any library.

    Tuples, sets, strings and arrays are none of these.

    Example:
        >>> import types
        >>> dict(container_of(types.MappingProxyType({"lr": 0.1})))
        {'lr': 0.1}
    """
    if isinstance(value, Mapping):
        return value
    if isinstance(value, MutableSequence) and not isinstance(value, bytearray):
        return list(value)
    items: Any = value
    return dict(items.items()) if is_mapping(value) else None


def plain_containers(value: Any) -> Any:
    """A value with dicts and lists in place of other mappings and sequences, at every level.

    Tuples, and whatever is no container of a configuration, stay as they are.

    Example:
        >>> from types import MappingProxyType
        >>> plain_containers({"layers": (MappingProxyType({"size": 3}),)})
        {'layers': ({'size': 3},)}
    """
    if type(value) is tuple:
        return tuple(plain_containers(part) for part in value)
    if type(value) is not list and isinstance(value, _OWN_SEQUENCES):
        return value
    container = container_of(value)
    if isinstance(container, Mapping):
        return {key: plain_containers(part) for key, part in container.items()}
    return value if container is None else [plain_containers(part) for part in container]


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
