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

State: TypeAlias = Any
"""A training state: a `TrainState`, or any pytree that a user's own steps take."""

StepMetrics: TypeAlias = dict[str, Any]
"""Metrics as a step returns them: name to an array, a pair, or an object that merges."""

Constants: TypeAlias = Any
"""What the steps of a dispatch read and do not change: a pytree of arrays."""

Carry: TypeAlias = Any
"""What one step hands to the next, in memory that is donated: a pytree of arrays."""

Outputs: TypeAlias = Any
"""What a step gives beside its carry: a pytree of arrays, of several steps stacked."""

Feed: TypeAlias = Any
"""Where the steps of a dispatch take their batches from; see `Chunk`."""

Loader: TypeAlias = Any
"""Whatever a user gives that yields batches."""

Number: TypeAlias = Any
"""A number of Python, of NumPy, or an array without axes, that may be traced."""

Json: TypeAlias = dict[str, Any]
"""Plain JSON by name."""
