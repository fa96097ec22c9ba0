"""PyTorch loaders that give NumPy batches, as the UvA "Research Projects with JAX" guide has them.

May not import torch until a loader is made.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from boltax._base._optional import import_optional
from boltax.data._arrays import to_array
from boltax.data._torch_workers import prepare_workers
from boltax.errors import ConfigurationError


def numpy_collate(batch: Sequence[Any]) -> Any:
    """Makes a batch of NumPy arrays out of examples: the ``collate_fn`` of a PyTorch `DataLoader`.

    Args:
        batch: the examples: arrays, tensors or numbers, or tuples, lists or dicts of them.

    Returns:
        Arrays ``[batch, ...]`` in the structure of an example; a tuple becomes a list, as in the
        guide.

    Example:
        >>> from boltax.data import numpy_collate
        >>> numpy_collate([(1.0, 0), (2.0, 1)])
        [array([1., 2.]), array([0, 1])]
    """
    first = batch[0]
    if isinstance(first, dict):
        return {key: numpy_collate([example[key] for example in batch]) for key in first}
    if isinstance(first, tuple | list):
        return [numpy_collate(column) for column in zip(*batch, strict=True)]
    if np.isscalar(first):
        return np.array(batch)
    return np.stack([to_array(example) for example in batch])


def create_data_loaders(
    *datasets: Any,
    train: bool | Sequence[bool] = True,
    batch_size: int = 128,
    num_workers: int = 4,
    seed: int = 42,
) -> list[Any]:
    """Makes a PyTorch `DataLoader` with NumPy batches for each data set.

    Workers start by "forkserver" (or "spawn"): a process that runs JAX must not be forked. So the
    script that makes them needs ``if __name__ == "__main__":``.

    Args:
        *datasets: PyTorch data sets.
        train: whether a data set is for training, which shuffles it and leaves out the last batch
            when it is not full; one answer for all, or one for each.
        batch_size: examples in a batch.
        num_workers: processes that read each data set; 0 reads it in this process.
        seed: decides the order of the shuffled ones.

    Returns:
        One `torch.utils.data.DataLoader` for each data set.

    Raises:
        ConfigurationError: when `train` is a sequence of another length than `datasets`.
        DataError: when there are workers, and a data set cannot be sent to them.

    Example:
        ``train_loader, val_loader = create_data_loaders(train_set, val_set, train=[True, False])``
    """
    data: Any = import_optional("torch.utils.data", extra="torch", purpose="create_data_loaders")
    torch: Any = import_optional("torch", extra="torch", purpose="create_data_loaders")
    is_train = [train] * len(datasets) if isinstance(train, bool) else list(train)
    if len(is_train) != len(datasets):
        raise ConfigurationError(
            f"Received create_data_loaders with {len(datasets)} data sets and train={train!r}; "
            "expected one answer for each data set. Write train=[True, False, False], for example."
        )
    loaders: list[Any] = []
    for index, (dataset, shuffle) in enumerate(zip(datasets, is_train, strict=True)):
        loader = data.DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=shuffle,
            collate_fn=numpy_collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )
        prepare_workers(loader, f"data set {index} of create_data_loaders")
        loaders.append(loader)
    return loaders
