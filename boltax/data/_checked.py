"""What every foreign source gets: normalised and checked batches, and errors that say where.

May not know what kind of loader it wraps.
"""

from collections.abc import Iterator
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._batches import BatchCheck
from boltax.data._cursor import consumed
from boltax.errors import BoltaxError, DataError, noting


class CheckedSource:
    """A source whose batches are host arrays that have passed `BatchCheck`.

    It assigns to itself to remember whether the loader ever gave a batch: one that gave some and
    now gives none is spent, one that never did is empty.

    Args:
        source: the source to read, of any kind.
        name: the loader, as messages name it.
        received: what it is, for messages: its class and length.
    """

    def __init__(self, source: Any, name: str, received: str) -> None:
        self.num_batches: int | None = source.num_batches
        self.owns_batches: bool = getattr(source, "owns_batches", False)
        self._source = source
        self._name = name
        self._received = received
        self._check = BatchCheck(name)
        self._has_given_any = False

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch, as `Source` says.

        Raises:
            DataError: when a batch cannot be used, or when there is none.
        """
        # here and not in a generator: the loader is put in its place even if nothing is asked for
        with noting(self._name, f"epoch {epoch}"):
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
                with noting(self._name, f"epoch {epoch}, batch {number}"):
                    raise
            batch = self._check(batch, epoch, number)
            self._has_given_any = True
            yield batch, cursor
        if number == 1:
            raise self._nothing(epoch)

    def fingerprint(self) -> dict[str, Any]:
        """That of the loader."""
        return self._source.fingerprint()

    def _nothing(self, epoch: int) -> DataError:
        if epoch == 1 and not self._has_given_any:
            return DataError(
                f"Received {self._name} ({self._received}), which gave no batch in epoch {epoch}; "
                "expected at least one. Check that the data set is not empty, that no filter drops "
                "everything, that drop_last is not set with fewer examples than one batch, and "
                "that an iterator was not read to its end before."
            )
        advice = (
            "a list of the batches, or a function that returns a fresh iterator each time: "
            f"{self._name}=lambda: make_batches()"
        )
        if self._name == "train_loader":
            advice += (
                ". To cut epochs out of one long stream, set LoopOptions(steps_per_epoch=...); to "
                "end with it, set max_steps"
            )
        return DataError(
            f"Received {self._name} ({self._received}), which gave batches before and none in "
            f"epoch {epoch}: it can be read only once. Expected a loader that can be read again. "
            f"Pass {advice}."
        )
