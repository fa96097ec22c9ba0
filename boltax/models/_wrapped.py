"""A model whose calls are made in another way; all else of it is as without."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from boltax._base._types import Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._calls import Call
from boltax.parallel._rules import AxisNames


class Wrapped(ABC):
    """A model around another one; see `ModelAdapter`.

    Args:
        adapter: the other one.
    """

    def __init__(self, adapter: ModelAdapter) -> None:
        self.model = adapter.model
        self.name = adapter.name
        self.apply_fn: Callable[..., Any] = adapter.apply_fn
        self._adapter = adapter

    @property
    def axis_names(self) -> AxisNames:
        """As the model. See `ModelAdapter.axis_names`."""
        return self._adapter.axis_names

    def empty(self, key: jax.Array) -> Variables:
        """As the model. See `ModelAdapter.empty`."""
        return self._adapter.empty(key)

    @abstractmethod
    def apply(
        self, variables: Variables, args: tuple[Any, ...], kwargs: Mapping[str, Any], **options: Any
    ) -> tuple[Any, Variables]:
        """Calls the model. See `ModelAdapter.apply`."""

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The model as it is. See `ModelAdapter.bind`."""
        return self._adapter.bind(variables, rngs)

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """As the model. See `ModelAdapter.tabulate`."""
        return self._adapter.tabulate(calls, depth=depth, console=console)
