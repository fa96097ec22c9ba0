"""A PyTorch `DataLoader` as a source.

May not import torch: a program that has a loader has done so.
"""

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from boltax._types import Batch, Cursor
from boltax.data._iterables import class_name, length, numbered
from boltax.data._torch_workers import prepare_workers

GUARD_NOTE = (
    "Workers import the script that was started: put what it does under "
    '`if __name__ == "__main__":`. If it is there, a worker was killed, maybe for lack of memory. '
    "num_workers=0 needs no workers."
)


class TorchSource:
    """A PyTorch `DataLoader` (or torchdata's `StatefulDataLoader`); each epoch is one iteration.

    The order is PyTorch's own, from the loader's generator: iterations by hand advance it. Samplers
    with ``set_epoch`` are told the epoch, which PyTorch counts from 0.

    Args:
        loader: the data loader.
        name: the loader, as messages name it.

    Raises:
        DataError: when it has workers and its data set, collate function or worker_init_fn cannot
            be sent to them.
    """

    def __init__(self, loader: Any, name: str) -> None:
        prepare_workers(loader, name)
        self.num_batches = length(loader)
        self.owns_batches: bool = loader.num_workers > 0  # from workers it comes as new memory
        self._loader = loader

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; the first `start` batches are read and dropped."""
        samplers = [getattr(self._loader, name, None) for name in ("sampler", "batch_sampler")]
        for part in [*samplers, getattr(samplers[1], "sampler", None)]:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch - 1)  # pyright: ignore[reportOptionalMemberAccess]
        with _guard_noted():
            yield from numbered(itertools.islice(self._loader, start, None), epoch, start)

    def fingerprint(self) -> dict[str, Any]:
        """Its class, length, batch size and whether it leaves out the last batch."""
        return {
            "kind": class_name(self._loader),
            "num_batches": self.num_batches,
            "batch_size": getattr(self._loader, "batch_size", None),
            "drop_last": getattr(self._loader, "drop_last", None),
            "sampler": class_name(getattr(self._loader, "sampler", None)),
        }


@contextmanager
def _guard_noted() -> Generator[None]:
    """Says what is the matter where workers died while they were started."""
    try:
        yield
    except (RuntimeError, BrokenPipeError, EOFError) as error:
        if not isinstance(error, RuntimeError) or "exited unexpectedly" in str(error):
            error.add_note(GUARD_NOTE)
        raise
