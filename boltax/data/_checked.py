"""What every foreign source gets: normalised and checked batches, and errors that say where.

May not know what kind of loader it wraps.
"""

import itertools
import logging
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np

from boltax._base._types import Batch, Cursor
from boltax.data._batches import BatchCheck
from boltax.data._cursor import consumed
from boltax.errors import BoltaxError, DataError, noting

_log = logging.getLogger("boltax")


class CheckedSource:
    """A source whose batches are host arrays that have passed `BatchCheck`.

    It assigns to itself to remember whether the loader ever gave a batch: one that gave some and
    now gives none is spent, one that never did is empty. And whether it was told that there are
    more or fewer batches than the loader says.

    Attributes:
        name: the loader, as messages name it.
        is_endless: whether the loader says of itself that it never ends.

    Args:
        source: the source to read, of any kind.
        name: see there.
        received: what it is, for messages: its class and length.
        is_cut: whether the number of batches is that of ``steps_per_epoch``, and not the loader's.
    """

    def __init__(self, source: Any, name: str, received: str, *, is_cut: bool = False) -> None:
        self.name = name
        self.num_batches: int | None = source.num_batches
        self.is_endless: bool = getattr(source, "is_endless", False)
        self.is_read_once: bool = getattr(source, "is_read_once", False)
        self._is_cut = is_cut
        self._may_give_more = not is_cut and getattr(source, "may_give_more", False)
        self._has_told = False
        self.owns_batches: bool = getattr(source, "owns_batches", False)
        self._source = source
        self._received = received
        self._check = BatchCheck(name)
        self._has_given_any = False

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch, as `Source` says.

        Raises:
            DataError: when a batch cannot be used, or when there is none.
        """
        # here and not in a generator: the loader is put in its place even if nothing is asked for
        with noting(self.name, f"epoch {epoch}"):
            stream = iter(self._source.epoch(epoch, after))
        return self._checked(stream, epoch, consumed(after, epoch))

    def _checked(
        self, stream: Iterator[tuple[Batch, Cursor]], epoch: int, number: int
    ) -> Iterator[tuple[Batch, Cursor]]:
        while True:
            number += 1
            try:
                batch, cursor = next(stream)
            except StopIteration:
                break
            except BoltaxError:
                raise
            except Exception:
                with noting(self.name, f"epoch {epoch}, batch {number}"):
                    raise
            batch = self._check(batch, epoch, number)
            self._has_given_any = True
            if number == self.num_batches and self._may_give_more:
                # the loop draws no further one, so this is the last moment to see whether there is
                self._may_give_more = False
                batch = jax.tree.map(_copied, batch)
                stream, has_more = _looked_ahead(stream)
                if has_more:
                    self._has_told = True
                    _log.warning(self._more())
            if not self.num_batches and self.num_batches is not None:
                raise self._said_none(epoch)
            yield batch, cursor
        if number == 1:
            raise self._nothing(epoch)
        if self.num_batches is not None and number <= self.num_batches and not self._has_told:
            self._has_told = True
            _log.warning(self._fewer(epoch, number - 1))

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the loader."""
        return self._source.fingerprint()

    def _more(self) -> str:
        told = (
            f"{self.name} ({self._received}) gives more batches than its len(), which is "
            f"{self.num_batches}. "
        )
        if self.name != "train_loader":
            return told + "All of them are used. Have its __len__ return their number."
        return told + (
            f"An epoch ends after {self.num_batches}, and the others are not trained on. Have its "
            "__len__ return their number, or leave __len__ out and write "
            "LoopOptions(steps_per_epoch=...)."
        )

    def _fewer(self, epoch: int, given: int) -> str:
        promise = "LoopOptions(steps_per_epoch=...)" if self._is_cut else "its len()"
        told = (
            f"{self.name} ({self._received}) ended after {given} batches in epoch {epoch}, and "
            f"{promise} says {self.num_batches}. "
        )
        if self.name != "train_loader":
            return told + "All of them were used. Have its __len__ return their number."
        return told + (
            f"A schedule of the learning rate that counts on {self.num_batches} steps in an epoch "
            f"comes only {given / (self.num_batches or 1):.0%} of its way in this one. "
            + (
                "Give a stream that does not end, or fewer steps_per_epoch."
                if self._is_cut
                else f"Have its __len__ return {given}, or write LoopOptions(steps_per_epoch="
                f"{given})."
            )
        )

    def _said_none(self, epoch: int) -> DataError:
        return DataError(
            f"Received {self.name} ({self._received}), whose len() is 0 and which gave a batch in "
            f"epoch {epoch}; expected the number of batches in an epoch, which schedules and "
            "progress go by. Have its __len__ return that number, or leave __len__ out and write "
            "LoopOptions(steps_per_epoch=...)."
        )

    def _nothing(self, epoch: int) -> DataError:
        if epoch == 1 and not self._has_given_any:
            return DataError(
                f"Received {self.name} ({self._received}), which gave no batch in epoch {epoch}; "
                "expected at least one. Check that the data set is not empty, that no filter drops "
                "everything, that drop_last is not set with fewer examples than one batch, and "
                "that an iterator was not read to its end before."
            )
        advice = (
            "a list of the batches, or a function that returns a fresh iterator each time: "
            f"{self.name}=lambda: make_batches()"
        )
        if self.name == "train_loader":
            advice += (
                ". To cut epochs out of one long stream, set LoopOptions(steps_per_epoch=...); to "
                "end with it, set max_steps"
            )
        return DataError(
            f"Received {self.name} ({self._received}), which gave batches before and none in "
            f"epoch {epoch}: it can be read only once. Expected a loader that can be read again. "
            f"Pass {advice}."
        )


def _looked_ahead(stream: Iterator[Any]) -> tuple[Iterator[Any], bool]:
    """The stream, and whether it goes on; an exception comes when its batch is asked for."""
    try:
        following = next(stream)
    except StopIteration:
        return stream, False
    except Exception as error:  # noqa: BLE001 - raised where the batch is asked for
        return _raising(error), False
    return itertools.chain([following], stream), True


def _raising(error: Exception) -> Generator[Any]:
    raise error
    yield


def _copied(leaf: Any) -> Any:
    """A leaf in memory that a loader which fills the same arrays again does not write to."""
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
