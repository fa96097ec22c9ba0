"""Whole numbers as people have them: Python's, and those of NumPy."""

from numbers import Integral
from typing import Any, TypeGuard


def is_whole(value: Any, at_least: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number, of Python or NumPy, and no bool.

    Args:
        value: anything.
        at_least: the smallest that will do; None for all.

    Example:
        >>> import numpy as np
        >>> is_whole(np.int64(3), 1), is_whole(3.0), is_whole(True), is_whole(0, 1)
        (True, False, False, False)
    """
    is_number = isinstance(value, Integral) and not isinstance(value, bool)
    return is_number and (at_least is None or int(value) >= at_least)
