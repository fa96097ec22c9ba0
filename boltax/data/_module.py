"""`DataModule`: the loaders of a data set under one name, that is stored with a run."""

from typing import Any

from boltax._base._types import Batch
from boltax.errors import ConfigurationError


class DataModule:
    """Gives the loaders of training, validation, test and prediction; write a subclass.

    Make it a frozen dataclass, at the top of the file of your trainer: its fields (sizes, seeds,
    the folder) are what is stored with a run, as a hyperparameter, and nothing of the data is.
    `load_from_checkpoint` makes it anew, as ``trainer.hparams["data"]``. What is read from the disk
    belongs into a `functools.cached_property`.

    Example:
        >>> import dataclasses, functools, numpy as np
        >>> from boltax.data import ArrayLoader, split
        >>> @dataclasses.dataclass(frozen=True)
        ... class Points(DataModule):
        ...     batch_size: int = 32
        ...     seed: int = 0
        ...     @functools.cached_property
        ...     def parts(self):
        ...         points = np.arange(100, dtype=np.float32)[:, None]
        ...         return split(points, {"train": 0.8, "val": 0.2}, seed=self.seed)
        ...     def train_loader(self):
        ...         return ArrayLoader(self.parts["train"], self.batch_size, shuffle=True)
        ...     def val_loader(self):
        ...         return ArrayLoader(self.parts["val"], self.batch_size)
        >>> print(Points().describe())
        train: 80 examples in 3 batches; val: 20 examples in 1 batches
    """

    def train_loader(self) -> Any:
        """The loader of training: write this.

        Raises:
            ConfigurationError: where a subclass has none.
        """
        raise ConfigurationError(
            f"Received {type(self).__name__} without train_loader; expected the loader to train "
            "on. Write def train_loader(self): return boltax.data.ArrayLoader(...)."
        )

    def val_loader(self) -> Any:
        """The loader of validations, or a dict of several; None for no validation."""
        return None

    def test_loader(self) -> Any:
        """The loader of the test, or a dict of several; None for no test."""
        return None

    def predict_loader(self) -> Any:
        """The loader whose outputs are wanted; by default that of the test."""
        return self.test_loader()

    def example(self) -> Batch:
        """A batch like those of training, for which the model is initialised."""
        return next(iter(self.train_loader()))

    def describe(self) -> str:
        """How the data are split, in words, as far as the loaders tell."""
        parts = [(name, getattr(self, f"{name}_loader")()) for name in ("train", "val", "test")]
        return "; ".join(
            f"{part}: {_sizes(one)}" for name, loader in parts for part, one in _each(name, loader)
        )


def _each(name: str, loader: Any) -> list[tuple[str, Any]]:
    if loader is None:
        return []
    if isinstance(loader, dict):
        return [(f"{name}/{key}", one) for key, one in loader.items()]
    return [(name, loader)]


def _sizes(loader: Any) -> str:
    examples, batches = getattr(loader, "num_examples", None), _length(loader)
    known = [
        *([] if examples is None else [f"{examples} examples"]),
        *([] if batches is None else [f"{batches} batches"]),
    ]
    return " in ".join(known) or type(loader).__name__


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
