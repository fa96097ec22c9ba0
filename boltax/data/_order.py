"""Reads a loader without moving the order in which it is read afterwards."""

import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from boltax.data._torch import generators_of


@contextmanager
def keeping_order(loader: Any) -> Generator[None]:
    """Within it a loader may be read: afterwards the generators behind its order are as before.

    These are the global ones of Python, NumPy and PyTorch, and those of a PyTorch loader. A
    `tf.data` set that shuffles anew in each pass has its own, and is one pass further.
    """
    torch: Any = sys.modules.get("torch")
    generators = [] if torch is None else generators_of(loader)
    states = [generator.get_state() for generator in generators]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
