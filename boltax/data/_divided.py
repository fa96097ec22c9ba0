"""Loaders in a job of several processes: the same whole batches in each, or a part of them in each.

A loader gives whole batches by default. Each process reads them and takes its rows; a checksum of
every batch is compared, so that processes which read in different orders end with an error, and not
with wrong numbers. With `Divided` each process's loader gives its own rows. In both ways processes
whose loaders end at different times do not wait for each other for ever.
"""

import zlib
from collections.abc import Iterator
from typing import Any, final

import jax
import numpy as np

from boltax._base._trees import common_size, describe
from boltax._base._types import Batch, Cursor, PyTree
from boltax.data._array_loader import ArrayLoader
from boltax.data._cursor import consumed, cursor_from_json, cursor_to_json
from boltax.data._generated import Generated
from boltax.errors import DataError
from boltax.parallel._arrays import gathered
from boltax.parallel._group import Group
from boltax.parallel._placement import Placement


@final
class Divided:
    """A loader that gives, in each process of a job, other examples: its part of each batch.

    So is a `torch.utils.data.DataLoader` with a ``DistributedSampler``, or a stream that each
    process reads from files of its own. The batch of a step is that of all processes together; it
    has the rows of the first process first. Where some give fewer examples than others, or end
    earlier, each example still counts once. In a process alone it is the loader itself.

    Args:
        loader: anything that yields batches.

    Example:
        >>> import numpy as np
        >>> from boltax.data import ArrayLoader
        >>> mine = Divided(ArrayLoader(np.arange(6), batch_size=2))
        >>> mine.loader.num_batches
        3
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader


def shared_source(source: Any, loader: Any, name: str, placement: Placement) -> Any:
    """A loader as all processes of a job read it together.

    Args:
        source: the loader as this process reads it.
        loader: as the user gave it.
        name: of the argument, for messages.
        placement: where the batches go.

    Raises:
        ProcessError: where processes have different arrays.
        ConfigurationError: for parts of batches that cannot lie where their process's devices are.
    """
    processes = placement.group
    if processes.is_alone or isinstance(source, Generated):
        return source
    if isinstance(loader, Divided):
        placement.check_divided()
        return _DividedSource(source, name, processes)
    if isinstance(source, ArrayLoader):  # whose order follows from its arguments
        processes.check_same(name, source.fingerprint())
        return source
    return _WholeSource(source, name, processes)


class _SourceOfAll:
    """What both have in common."""

    def __init__(self, source: Any, name: str, processes: Group) -> None:
        self.name, self._source, self._processes = name, source, processes
        self.owns_batches: bool = source.owns_batches
        self.is_endless: bool = getattr(source, "is_endless", False)
        self.is_read_once: bool = getattr(source, "is_read_once", False)
        each = processes.exchange(f"the length of {name}", source.num_batches)
        self.num_batches: int | None = None if None in each else max(each)

    def fingerprint(self) -> dict[str, Any]:
        """That of the loader of this process."""
        return self._source.fingerprint()


class _WholeSource(_SourceOfAll):
    """Whole batches, of which each process reads the same."""

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; see `Source`."""
        return self._compared(self._source.epoch(epoch, after), epoch)

    def _compared(
        self, stream: Iterator[tuple[Batch, Cursor]], epoch: int
    ) -> Iterator[tuple[Batch, Cursor]]:
        while True:
            item = next(stream, None)
            said = None if item is None else _checksum(item[0])
            each = self._processes.exchange(f"a batch of {self.name}", said)
            if any(other != each[0] for other in each):
                raise self._different(each, epoch, item)
            if item is None:
                return
            yield item

    def _different(self, each: list[Any], epoch: int, item: Any) -> DataError:
        where = f"epoch {epoch}"
        if item is not None:
            where = f"batch {item[1].get('batch')} of {where}"
        ended = [index for index, said in enumerate(each) if said is None]
        what = f"has ended in process {ended[0]}" if ended else "is not the same in all processes"
        return DataError(
            f"Received {self.name}, whose {where} {what}; expected the same whole batches in each "
            "process, which takes its rows of them. Give the loader a seed, as in DataLoader("
            "generator=torch.Generator().manual_seed(0)); or, if each process reads a part of its "
            f"own, write boltax.data.Divided({self.name})."
        )


class _DividedSource(_SourceOfAll):
    """Parts of batches, of which each process reads its own."""

    def __init__(self, source: Any, name: str, processes: Group) -> None:
        super().__init__(source, name, processes)
        self.owns_batches = True
        self._like: PyTree = None

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; see `Source`.

        Raises:
            DataError: for a place that another number of processes has noted.
        """
        processes, own = self._processes, None
        if after is not None:
            if len(after["of"]) != processes.count:
                raise DataError(
                    f"Received a place in {self.name} of {len(after['of'])} processes, each with "
                    f"a part of its own, in a job of {processes.count}; expected as many. Start as "
                    "many, or give whole batches, without Divided, which go on with any number."
                )
            own = cursor_from_json(after["of"][processes.index])
        start = consumed(after, epoch)
        return self._joined(self._source.epoch(epoch, own), epoch, start, own)

    def _joined(
        self, stream: Iterator[tuple[Batch, Cursor]], epoch: int, number: int, own: Cursor | None
    ) -> Iterator[tuple[Batch, Cursor]]:
        place = own or {"epoch": epoch, "batch": 0}
        while True:
            batch, place = next(stream, (None, place))
            if batch is not None:
                self._like = batch
            size = 0 if batch is None else self._size(batch)
            each = self._processes.exchange(
                f"a batch of {self.name}", [size, cursor_to_json(place)]
            )
            sizes = [said[0] for said in each]
            if not any(sizes):
                return
            number += 1
            of = [said[1] for said in each]
            yield self._whole(batch, sizes), {"epoch": epoch, "batch": number, "of": of}

    def _size(self, batch: Batch) -> int:
        size = common_size(batch)
        if size is None:
            raise DataError(
                f"Received a batch of {self.name} with {describe(batch)}; expected arrays that "
                "agree on their first axis, the examples of this process."
            )
        return size

    def _whole(self, batch: Batch | None, sizes: list[int]) -> Batch:
        """The batch of all: this process's rows in their place, all rows where sizes differ."""
        if self._like is None:
            raise DataError(
                f"Received {self.name} without any batch in this process, while others have some; "
                "expected one at least, from which its form follows."
            )
        index, most = self._processes.index, max(sizes)
        if min(sizes) == most:

            def place(leaf: Any) -> Any:
                whole = np.zeros((len(sizes) * most, *leaf.shape[1:]), leaf.dtype)
                whole[index * most : (index + 1) * most] = leaf
                return whole  # the rows of others are theirs to put on their devices

            return jax.tree.map(place, batch)

        def collect(leaf: Any) -> Any:
            own = np.zeros((most, *leaf.shape[1:]), leaf.dtype)
            if sizes[index]:
                own[: sizes[index]] = leaf
            each = gathered(own)
            return np.concatenate([part[:size] for part, size in zip(each, sizes, strict=True)])

        return jax.tree.map(collect, self._like if batch is None else batch)


def _checksum(batch: Batch) -> list[Any]:
    """What two processes compare of a batch."""
    said: list[Any] = []
    for leaf in jax.tree.leaves(batch):
        array = np.ascontiguousarray(jax.device_get(leaf))
        said.append([array.dtype.name, list(array.shape), zlib.crc32(array.view(np.uint8).data)])
    return said
