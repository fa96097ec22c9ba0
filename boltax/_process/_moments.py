"""Moments of a process at which something outside of training may act; each list may be empty."""

from collections.abc import Callable

before_first_model: list[Callable[[Callable[[], int]], str | None]] = []
"""Called before the first model of the process is initialised, when JAX's backend may not run yet,
with a function that gives the bytes of the values of its forward pass. May return a line to
show."""
after_compiling: list[Callable[[], None]] = []
"""Called in the background whenever a program has been compiled."""
