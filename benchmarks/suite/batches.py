"""The data of a task as a loader: in memory, PyTorch's `DataLoader`, or Grain, always shuffled.

`passes` is for loops written by hand, `loader` for libraries that take these loaders as they are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from suite.tasks import Arrays


def passes(
    arrays: Arrays, kind: str, batch: int, *, shuffle: bool
) -> Callable[[], Iterator[Arrays]]:
    """A function that begins one more epoch of NumPy batches."""
    if kind == "memory":
        return _from_memory(arrays, batch, shuffle)
    source = loader(arrays, kind, batch, shuffle=shuffle)
    if kind == "torch":
        return lambda: ((inputs.numpy(), labels.numpy()) for inputs, labels in source)
    size, epochs = len(source), iter(range(10**6))
    repeated = source.repeat() if shuffle else None

    def begin() -> Iterator[Arrays]:
        if repeated is None:
            return iter(source.to_iter_dataset())
        first = next(epochs) * size
        return iter(repeated[first : first + size].to_iter_dataset())

    return begin


def loader(arrays: Arrays, kind: str, batch: int, *, shuffle: bool) -> Any:
    """A `DataLoader` or a Grain data set, as its users write it."""
    if kind == "torch":
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        tensors = [torch.from_numpy(np.array(array)) for array in arrays]
        return DataLoader(TensorDataset(*tensors), batch, shuffle=shuffle, drop_last=True)
    import grain

    dataset = grain.MapDataset.source(_Examples(arrays)).seed(0)
    if shuffle:
        dataset = dataset.shuffle()
    return dataset.batch(batch, drop_remainder=True)


class _Examples:
    """Arrays as a source of single examples."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(array[index] for array in self._arrays)


def _from_memory(arrays: Arrays, batch: int, shuffle: bool) -> Callable[[], Iterator[Arrays]]:
    size, rng = len(arrays[0]), np.random.default_rng(1)

    def begin() -> Iterator[Arrays]:
        order = rng.permutation(size) if shuffle else None
        for start in range(0, size - batch + 1, batch):
            rows = slice(start, start + batch) if order is None else order[start : start + batch]
            yield arrays[0][rows], arrays[1][rows]

    return begin
