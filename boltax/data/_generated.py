"""Batches that a traced function makes from a random key, inside the compiled step."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Made
from boltax._base._types import Batch, Cursor
from boltax.data._cursor import consumed
from boltax.errors import ConfigurationError, DataError

MOST_BATCHES = 2**32


class Generated:
    """Batches made by a function of a random key: no data are stored, none are moved.

    For collocation points of a PINN, synthetic tasks, rollouts of a model that is known. The
    function is part of the compiled step: what goes to the device for a step are two numbers. Batch
    `n` of an epoch is a function of seed, epoch and `n`, so a resumed run goes on exactly.

    Args:
        sample: ``(key, batch_size) -> batch``, traced; a batch is any pytree of arrays
            ``[batch_size, ...]``.
        batch_size: examples in a batch.
        num_batches: batches in an epoch; None for a stream without end, for which ``max_steps`` or
            ``LoopOptions(steps_per_epoch=...)`` says how long it is used.
        seed: of all batches.

    Raises:
        ConfigurationError: for sizes that cannot be.
        DataError: when `sample` gives something else.

    Example:
        >>> import jax
        >>> def sample(key, batch_size):
        ...     x = jax.random.uniform(key, (batch_size, 2))
        ...     return x, x.sum(-1)
        >>> loader = Generated(sample, batch_size=16)
        >>> inputs, targets = next(iter(loader))
        >>> inputs.shape, targets.shape
        ((16, 2), (16,))
    """

    owns_batches = True

    def __init__(
        self,
        sample: Callable[[jax.Array, int], Batch],
        batch_size: int,
        *,
        num_batches: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("num_batches", num_batches)):
            is_open = name == "num_batches" and value is None
            if not is_open and (type(value) is not int or value < 1):
                raise ConfigurationError(
                    f"Received Generated({name}={value!r}); expected a whole number of at least 1."
                )
        if not callable(sample):
            raise ConfigurationError(
                f"Received Generated(sample={sample!r}); expected a function of a key and the "
                "batch size. Write def sample(key, batch_size): return jax.random.normal(key, ...)."
            )
        self.sample, self.batch_size, self.seed = sample, batch_size, seed
        self.num_batches = num_batches
        self.is_endless = num_batches is None
        self._check()

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the first epoch as NumPy arrays, made one by one."""
        make = jax.jit(Made.batch)
        for made, _ in self.epoch(1):
            with jax.transfer_guard("allow"):
                yield jax.device_get(make(made))

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """What an epoch's batches are made from, with their cursors; see `Source`."""
        last = MOST_BATCHES if self.num_batches is None else self.num_batches
        for number in range(consumed(after, epoch), last):
            key = np.asarray([self.seed % 2**32, epoch, number], np.uint32)
            made = Made(key, self.sample, self.batch_size)
            yield made, {"epoch": epoch, "batch": number + 1}

    def fingerprint(self) -> dict[str, Any]:
        """What decides which batches come: of the function its name alone."""
        name = getattr(self.sample, "__qualname__", type(self.sample).__qualname__)
        return {
            "kind": "Generated",
            "sample": name,
            "batch_size": self.batch_size,
            "num_batches": self.num_batches,
            "seed": self.seed,
        }

    def _check(self) -> None:
        """Traces the function once, so that what is wrong with it shows here."""
        made = Made(np.zeros(3, np.uint32), self.sample, self.batch_size)
        form = jax.eval_shape(Made.batch, made)
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(form)}
        if sizes != {(self.batch_size,)}:
            shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(form)) or "no arrays"
            raise DataError(
                f"Received {shapes} from the sample function of Generated; expected arrays "
                f"[{self.batch_size}, ...], one row for each example. Make batch_size of them."
            )
