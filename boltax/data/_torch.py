"""A PyTorch `DataLoader` as a source.

May not import torch: a program that has a loader has done so.
"""

import itertools
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from boltax._base._types import Batch, Cursor
from boltax.data._arrays import is_a
from boltax.data._cursor import consumed
from boltax.data._iterables import class_name, dropping, length
from boltax.data._torch_workers import prepare_workers

GUARD_NOTE = (
    "Workers import the script that was started: put what it does under "
    '`if __name__ == "__main__":`. If it is there, a worker was killed, maybe for lack of memory. '
    "num_workers=0 needs no workers."
)


class TorchSource:
    """A PyTorch `DataLoader` (or torchdata's `StatefulDataLoader`); each epoch is one iteration.

    The order is PyTorch's own, from a generator: iterations by hand advance it. Cursors hold the
    state of a `StatefulDataLoader`, from which it goes on; of any other loader the generators as
    they were when the epoch began, so that reading it again gives the same order. Samplers with
    ``set_epoch`` are told the epoch, which PyTorch counts from 0.

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
        self.owns_batches = _gives_new_memory(loader)
        self._loader = loader
        self._is_stateful = hasattr(loader, "load_state_dict") and hasattr(loader, "state_dict")
        # an iterable data set may give more than it says
        is_stream = is_a(getattr(loader, "dataset", None), "torch", "IterableDataset")
        self._last = None if is_stream else self.num_batches

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """One iteration; of a loader without a state, consumed batches are read and dropped.

        It ends with the last batch, since PyTorch's sampler draws from the generator once more when
        it is asked for another one. The loader is put in its place by the call, so that the next
        epoch is right even if no batch is asked for.
        """
        for part in self._samplers():
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch - 1)
        start, after = consumed(after, epoch), after or {}
        with _guard_noted():
            if "state" in after:
                loader: Any = self._with_state(after, is_begun=start > 0)
            else:
                self._set_generators(after.get("before" if 0 < start != self._last else "after"))
                loader = self._loader
        return self._read(loader, epoch, start, 0 if "state" in after else start)

    def _read(
        self, loader: Any, epoch: int, start: int, dropped: int
    ) -> Iterator[tuple[Batch, Cursor]]:
        if start == self._last:
            return
        with _guard_noted():
            before = self._generator_states()
            iterator = dropping(loader, dropped, class_name(self._loader))
            count = None if self._last is None else self._last - start
            for number, batch in enumerate(itertools.islice(iterator, count), start=start + 1):
                yield batch, {"epoch": epoch, "batch": number, **self._place(number, before)}

    def _place(self, number: int, before: list[Any]) -> Cursor:
        """What of the loader belongs into the cursor of a batch, as it is."""
        if self._is_stateful:
            return {"state": self._loader.state_dict(), "after": self._generator_states()}
        is_maybe_last = self._last is None or number == self._last
        return {"before": before} | ({"after": self._generator_states()} if is_maybe_last else {})

    def _with_state(self, after: Cursor, is_begun: bool) -> Any:
        """The iteration that goes on; or the loader, after the end of the epoch before."""
        self._loader.load_state_dict(after["state"])  # before iter(), which would start anew
        iterator = iter(self._loader)
        self._set_generators(after["after"])  # iter() has drawn from them
        if is_begun:
            return iterator
        if self._last is None:
            next(iterator, None)  # the end, that it has seen in the epoch before
        return self._loader

    def _samplers(self) -> list[Any]:
        return _samplers_of(self._loader)

    def _generator_states(self) -> list[Any]:
        return [generator.get_state() for generator in generators_of(self._loader)]

    def _set_generators(self, states: list[Any] | None) -> None:
        if states is not None:
            for generator, state in zip(generators_of(self._loader), states, strict=True):
                generator.set_state(state)

    def fingerprint(self) -> dict[str, Any]:
        """The loader's class, data set, length, batch size, sampler and seed, as far as known."""
        data_set = getattr(self._loader, "dataset", None)
        generator = getattr(self._loader, "generator", None)
        sampler = getattr(self._loader, "sampler", None)
        settings = {name: getattr(sampler, name, None) for name in ("seed", "num_replicas")}
        return {
            "kind": class_name(self._loader),
            "dataset": class_name(data_set),
            "num_examples": length(data_set),
            "num_batches": self.num_batches,
            "batch_size": getattr(self._loader, "batch_size", None),
            "drop_last": getattr(self._loader, "drop_last", None),
            "sampler": class_name(sampler),
            "sampler_settings": {n: v for n, v in settings.items() if isinstance(v, int)},
            "seed": None if generator is None else generator.initial_seed(),
        }


def _gives_new_memory(loader: Any) -> bool:
    """Whether batches come from workers, or examples are stacked as PyTorch does it."""
    default = sys.modules["torch"].utils.data.default_collate
    is_stacked = getattr(loader, "batch_sampler", None) is not None
    return loader.num_workers > 0 or (is_stacked and loader.collate_fn is default)


def generators_of(loader: Any) -> list[Any]:
    """The generators that decide a loader's order, PyTorch's default one last."""
    owners = [loader, *_samplers_of(loader)]
    found = [getattr(owner, "generator", None) for owner in owners]
    found += [sys.modules["torch"].default_generator]
    return list({id(g): g for g in found if g is not None}.values())


def _samplers_of(loader: Any) -> list[Any]:
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    return [*samplers, getattr(samplers[1], "sampler", None)]


@contextmanager
def _guard_noted() -> Generator[None]:
    """Says what is the matter where workers died while they were started."""
    try:
        yield
    except (RuntimeError, BrokenPipeError, EOFError) as error:
        if not isinstance(error, RuntimeError) or "exited unexpectedly" in str(error):
            error.add_note(GUARD_NOTE)
        raise
