"""A loader as the loop sees it, and the dispatch that makes one of whatever the user has.

May not import torch, tensorflow or grain: loaders are recognised by the names of their classes.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from boltax._base._evaluation import is_named
from boltax._base._trees import describe
from boltax._base._types import Batch, Cursor
from boltax.data._array_loader import ArrayLoader
from boltax.data._arrays import is_a, to_array
from boltax.data._batches import is_mapping
from boltax.data._checked import CheckedSource
from boltax.data._divided import Divided
from boltax.data._generated import Generated
from boltax.data._grain import GrainIterSource, GrainMapSource
from boltax.data._huggingface import refuse_rows
from boltax.data._iterables import (
    FunctionSource,
    IterableSource,
    IteratorSource,
    SequenceSource,
    class_name,
    length,
)
from boltax.data._slices import EpochSlices
from boltax.data._tf import TfSource
from boltax.data._together import Mixture, MixtureSource, Together, TogetherSource
from boltax.data._torch import TorchSource
from boltax.errors import DataError


class Source(Protocol):
    """A loader as the loop sees it: epochs by number, and batches with cursors.

    Any loader is made into one. Write one to bring a data stream that knows its own positions.

    Attributes:
        num_batches: batches in an epoch; None when that is not known.
        owns_batches: whether the arrays of a batch are new ones that nothing else writes to.
    """

    @property
    def num_batches(self) -> int | None:
        """Batches in an epoch; None when that is not known."""
        ...

    @property
    def owns_batches(self) -> bool:
        """Whether the arrays of a batch are new ones that nothing else writes to."""
        ...

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch as host arrays, each with its cursor.

        A batch is drawn when it is asked for, never ahead. The cursor says that the batch it comes
        with has been consumed: ``{"epoch": epoch, "batch": number, ...}`` and what else the source
        needs, as plain JSON.

        Args:
            epoch: which one, from 1.
            after: goes on behind the batch with this cursor; None for the beginning. It is of this
                epoch, or of the last batch of the one before, when a run that is resumed begins
                an epoch and the loader has a state that lasts through epochs.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides which batches come, as far as it is known, as plain JSON."""
        ...


def as_source(
    loader: Any, *, name: str = "train_loader", steps_per_epoch: int | None = None
) -> Source:
    """The loader as a `Source`, whatever it is.

    Args:
        loader: an `ArrayLoader`, a PyTorch `DataLoader`, a `tf.data.Dataset`, a Grain data set or
            loader, a list or other iterable of batches, an iterator or generator (read once), a
            function without arguments that returns any of these, a dict of any of these, or a
            `Source`.
        name: the argument that it was, for messages.
        steps_per_epoch: makes epochs of so many steps out of one pass after the other; None has an
            epoch end with the loader. Such a source knows where its stream is: keep it through all
            epochs. A source that this function has made is given back as it is.

    Raises:
        DataError: when it is nothing that gives batches.

    Example:
        >>> import numpy as np
        >>> source = as_source([np.zeros((2, 3)), np.ones((1, 3))])
        >>> [cursor for batch, cursor in source.epoch(1)]
        [{'epoch': 1, 'batch': 1}, {'epoch': 1, 'batch': 2}]
    """
    if isinstance(loader, CheckedSource):
        return loader
    source = _open(loader, name, steps_per_epoch)
    if steps_per_epoch is not None and not isinstance(source, IteratorSource):
        source = EpochSlices(source, steps_per_epoch)
    if isinstance(loader, ArrayLoader | Generated):
        return source  # its arrays were checked when it was made
    is_cut = steps_per_epoch is not None
    return CheckedSource(source, name, _received(loader), is_cut=is_cut)


def check_ends(source: Source, advice: str) -> None:
    """Refuses a source that says of itself that it never ends, where that would be waited for.

    Args:
        source: what is to be read to its end.
        advice: what to write instead.

    Raises:
        DataError: when it never ends.
    """
    if getattr(source, "is_endless", False):
        name = getattr(source, "name", "the loader")
        raise DataError(
            f"Received {name}, a data set that repeats for ever; expected one that ends, or a "
            f"limit. {advice}, or leave .repeat() out: each epoch is a pass of its own."
        )


def _open(loader: Any, name: str, steps_per_epoch: int | None = None) -> Source:
    """The source for this kind of loader, its batches not checked."""
    refuse_rows(loader, name)  # before what is a dict: a data set by its splits is one
    if is_named(loader):
        loader = Together(loader)
    if isinstance(loader, Together):
        parts = {key: _part(one, f"{name}[{key!r}]") for key, one in loader.loaders.items()}
        return TogetherSource(parts, loader.until, name)
    if isinstance(loader, Mixture):
        of_mixture = [_part(one, f"{name}, part {n}") for n, one in enumerate(loader.loaders, 1)]
        return MixtureSource(of_mixture, loader, name)
    if isinstance(loader, Divided):
        return _open(loader.loader, name, steps_per_epoch)
    _refuse_data(loader, name)
    if all(hasattr(loader, part) for part in ("num_batches", "epoch", "fingerprint")):
        return loader
    if is_a(loader, "torch", "DataLoader"):
        return TorchSource(loader, name)
    if is_a(loader, "tensorflow", "DatasetV2"):
        return TfSource(loader, name)
    if is_a(loader, "grain", "MapDataset"):
        return GrainMapSource(loader)
    if is_a(loader, "grain", "IterDataset") or is_a(loader, "grain", "DataLoader"):
        return GrainIterSource(loader)
    if isinstance(loader, Iterator):
        return IteratorSource(loader, steps_per_epoch)
    if _is_sequence(loader):
        return SequenceSource(loader)
    if isinstance(loader, Iterable):
        return IterableSource(loader)
    if callable(loader):
        _check_takes_nothing(loader, name)
        return FunctionSource(loader, lambda result: _open(result, f"what {name}() returns"))
    raise _no_loader(loader, name, "Write boltax.data.ArrayLoader(arrays, batch_size=128).")


def _part(loader: Any, name: str) -> Source:
    """A loader that is a part of another one."""
    if isinstance(loader, Generated):
        raise _no_loader(
            loader,
            name,
            "Batches of Generated are made within the step: hand it over alone, or draw its "
            "numbers in loss_function, with model.rng('sample').",
        )
    return as_source(loader, name=name)


def _is_sequence(loader: Any) -> bool:
    if isinstance(loader, Sequence):
        return True
    has_both = hasattr(loader, "__getitem__") and length(loader) is not None
    return has_both and not isinstance(loader, Iterable)


def _refuse_data(loader: Any, name: str) -> None:
    """Raises for what gives no batches when it is iterated: the data itself, a class, text."""
    is_array = hasattr(to_array(loader), "shape")
    is_arrays = isinstance(loader, tuple) and loader and all(hasattr(x, "shape") for x in loader)
    if is_array or is_arrays or is_mapping(loader):
        raise _no_loader(
            loader, name, f"Write {name}=boltax.data.ArrayLoader(arrays, batch_size=128)."
        )
    if is_a(loader, "torch", "Dataset") and not is_a(loader, "torch", "IterableDataset"):
        raise _no_loader(
            loader, name, f"Write {name}=torch.utils.data.DataLoader(dataset, batch_size=128)."
        )
    if isinstance(loader, str | bytes | type):
        raise _no_loader(loader, name, "Pass the loader itself, not its name, path or class.")


def _check_takes_nothing(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        advice = f"Bind its arguments: {name}=lambda: make_batches(...). Its signature: {error}."
        raise _no_loader(function, name, advice) from error
    except ValueError:
        return  # builtins without a signature: the call will tell


def _no_loader(loader: Any, name: str, advice: str) -> DataError:
    return DataError(
        f"Received {name}={_received(loader)}; expected a loader: an ArrayLoader, a PyTorch "
        "DataLoader, a tf.data or Grain data set, an iterable of batches, or a function without "
        f"arguments that returns one. {advice}"
    )


def _received(loader: Any) -> str:
    """What the user gave, for messages: its class, with the shapes or the length that it has."""
    if isinstance(loader, dict | tuple) and loader:
        return f"{class_name(loader)} ({describe(loader, 'arrays', most=4)})"
    if hasattr(loader, "shape") and hasattr(loader, "dtype"):
        return describe(loader, class_name(loader))
    if isinstance(loader, str | bytes | type) or loader is None:
        return repr(loader)
    name = getattr(loader, "__qualname__", None)
    size = length(loader)
    return (
        f"function {name}"
        if name
        else class_name(loader) + ("" if size is None else f" of length {size}")
    )
