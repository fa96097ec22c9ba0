"""Loaders: `ArrayLoader` for arrays in memory, PyTorch loaders with NumPy batches, and `Source`.

A trainer takes any loader: one of these, a PyTorch `DataLoader`, a `tf.data.Dataset`, a Grain data
set, a list or any other iterable of batches, a generator, or a function that returns one. A batch
is any pytree of arrays that share their first axis.

    >>> import numpy as np
    >>> from boltax.data import ArrayLoader
    >>> images, labels = np.zeros((1000, 28, 28, 1), np.float32), np.zeros(1000, np.int32)
    >>> train_loader = ArrayLoader((images, labels), batch_size=128, shuffle=True, drop_last=True)
    >>> val_loader = ArrayLoader({"image": images, "label": labels}, batch_size=256)
    >>> len(train_loader), len(val_loader)
    (7, 4)
    >>> batch = next(iter(val_loader))
    >>> batch["image"].shape, batch["label"].shape
    ((256, 28, 28, 1), (256,))
"""

from boltax.data._array_loader import ArrayLoader
from boltax.data._collate import create_data_loaders, numpy_collate
from boltax.data._divided import Divided
from boltax.data._generated import Generated
from boltax.data._module import DataModule
from boltax.data._source import Source
from boltax.data._split import split
from boltax.data._together import Mixture, Together

__all__ = [
    "ArrayLoader",
    "DataModule",
    "Divided",
    "Generated",
    "Mixture",
    "Source",
    "Together",
    "create_data_loaders",
    "numpy_collate",
    "split",
]
