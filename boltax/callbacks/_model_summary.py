"""Prints the table of the model's layers at the start of training."""

import sys

from boltax.callbacks._base import Callback, View


class ModelSummary(Callback):
    """Prints the model's layers, their shapes and numbers of parameters when training starts.

    The same table is in the run's folder as ``model.txt``.

    Example:
        >>> ModelSummary().every
        1
    """

    def on_training_start(self, view: View) -> None:
        """Prints the table."""
        sys.stdout.write(view.summary().rstrip() + "\n")
