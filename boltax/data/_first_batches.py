"""The first batches of a loader again and again, for `LoopOptions(overfit_batches=...)`."""

import itertools
from collections.abc import Iterator
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._cursor import consumed
from boltax.errors import DataError


class FirstBatches:
    """A source whose epochs are all the first batches of another one's first epoch.

    Args:
        source: the loader.
        batches: how many, at most.
        name: the loader, for messages.

    Raises:
        DataError: for a loader that is read once.
    """

    def __init__(self, source: Any, batches: int, name: str) -> None:
        if getattr(source, "is_read_once", False):
            raise DataError(
                f"Received LoopOptions(overfit_batches={batches}) with {name}, which can be read "
                "once; expected a loader that gives the same batches again. Write a list of some "
                "batches, or the function that makes the generator."
            )
        known = source.num_batches
        self.num_batches: int = batches if known is None else min(known, batches)
        self.owns_batches: bool = source.owns_batches
        self._source = source

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; see `Source`."""
        start = consumed(after, epoch)
        inner = after["first"] if start and after is not None else None
        stream = itertools.islice(self._source.epoch(1, inner), self.num_batches - start)
        for number, (batch, cursor) in enumerate(stream, start + 1):
            yield batch, {"epoch": epoch, "batch": number, "first": cursor}

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the loader, and what is taken of it."""
        return {**self._source.fingerprint(), "overfit_batches": self.num_batches}
