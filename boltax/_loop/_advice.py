"""What a run need not be advised to do, since it does it already: for the ledger at its end."""

from boltax._base._types import Loader
from boltax._build._parts import Parts
from boltax._process._compilation_cache import is_kept
from boltax.data._array_loader import ArrayLoader


def followed(parts: Parts, train_loader: Loader) -> set[str]:
    """The settings of `ADVICE` that a run has, or that mean nothing for it."""
    is_arrays, saving = isinstance(train_loader, ArrayLoader), parts.checkpoint
    facts = {
        "cache": is_kept(),
        "drop_last": getattr(train_loader, "drop_last", False),
        "ArrayLoader": is_arrays,
        "workers": not hasattr(train_loader, "num_workers"),
        "device_resident": not is_arrays or train_loader.device_resident is True,
        "save_every": not (saving.every_steps or saving.every_epochs or saving.every_minutes),
        "check_val_every_n_epoch": parts.check_val_every_n_epoch > 1,
        "limit_val_batches": parts.loop.limit_val_batches is not None,
        "callbacks": not parts.callbacks,
    }
    return {setting for setting, is_followed in facts.items() if is_followed}
