"""A misspelt keyword argument of a method that users call is told with the name that was meant."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from boltax.errors import unknown_name

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def with_known_names(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """The function, which refuses keyword arguments that it does not have: did you mean ...?

    Example:
        >>> @with_known_names
        ... def train(*, num_epochs=1):
        ...     return num_epochs
        >>> train(epochs=3)
        Traceback (most recent call last):
        ...
        boltax.errors.UnknownNameError: Received argument of train 'epochs'; expected one of: ...
    """
    names = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        for name in kwargs:
            if name not in names:
                what = function.__qualname__.removesuffix(".__init__")
                raise unknown_name(f"argument of {what}", name, names)
        return function(*args, **kwargs)

    return call
