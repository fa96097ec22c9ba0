"""Imports of optional packages: the one place that knows which extra brings which package."""

import importlib
from types import ModuleType

from boltax.errors import MissingExtraError


def import_optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports `module`, or says which extra installs it.

    Args:
        module: the dotted name to import, e.g. ``"wandb"``.
        extra: the extra of boltax that installs it, e.g. ``"wandb"``.
        purpose: what needs it, for the message, e.g. ``"the W&B logger"``.

    Raises:
        MissingExtraError: when the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            # the package is there, and something that it needs is not: its own message is better
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {top!r}, which is not installed; run: pip install "
            f'"boltax[{extra}]"'
        ) from error
