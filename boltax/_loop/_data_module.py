"""The loaders of a run, where a data module gives them."""

from collections.abc import Mapping
from typing import Any

from boltax._loop._trainees import Loaders
from boltax.data._module import DataModule
from boltax.errors import ConfigurationError, noting


def loaders_of(hparams: Mapping[str, Any], train: Any, val: Any, test: Any) -> Loaders:
    """The loaders that were given, or those of a data module.

    Args:
        hparams: of the trainer; its data module is the one named ``data``.
        train: the loader of training, a data module, or None for that of the trainer.
        val: that of validation; not beside a data module.
        test: that of the test, likewise.

    Raises:
        ConfigurationError: where there is neither, or a loader beside a data module.
    """
    module: Any = train
    if train is None:
        module = hparams.get("data")
        if not isinstance(module, DataModule):
            raise ConfigurationError(
                "Received no train_loader, and a trainer without a data module; expected one of "
                "them. Write train_model(train_loader, val_loader), or give the trainer data=..., "
                "a boltax.data.DataModule."
            )
    if not isinstance(module, DataModule):
        return Loaders(train, val, test)
    if val is not None or test is not None:
        raise ConfigurationError(
            f"Received {type(module).__name__} and a loader beside it; expected one of them, since "
            "a data module gives the loaders of validation and test as well. Write "
            "train_model(data.train_loader(), val_loader, test_loader)."
        )
    with noting(f"the loaders of {type(module).__name__}"):
        return Loaders(module.train_loader(), module.val_loader(), module.test_loader())
