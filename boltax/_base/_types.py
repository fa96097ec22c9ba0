"""Names for the values that parts of boltax hand to each other. No behaviour lives here."""

from typing import Any, TypeAlias

PyTree: TypeAlias = Any
"""A JAX pytree: any nesting of dicts, lists, tuples and registered classes with array leaves."""

Batch: TypeAlias = Any
"""A pytree of arrays that share their first axis: the examples, ``[batch, ...]``."""

Cursor: TypeAlias = dict[str, Any]
"""A place in a data stream, as plain JSON: just behind the batch that it came with."""

Variables: TypeAlias = dict[str, Any]
"""A model's variables by collection, each a nested dict of arrays: ``{"params": ..., ...}``."""

ScalarMetrics: TypeAlias = dict[str, Any]
"""Metrics as they reach loggers and hooks: name to float, or to a NumPy array."""
