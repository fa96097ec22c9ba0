"""Counts the programs that are compiled, or found in the cache, by the names of their functions."""

from collections import Counter

import jax

compiled: Counter[str] = Counter()
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, fun_name="", **__: compiled.update(
        [fun_name] if event.endswith("backend_compile_duration") else []
    )
)
STEPS = ("jit(single)", "jit(loop)", "jit(train_loop)", "jit(unrolled)")
"""The programs of training and evaluation steps."""
