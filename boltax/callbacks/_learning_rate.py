"""Logs the learning rate."""

from typing import Any

import jax

from boltax.callbacks._base import Callback, Log, View
from boltax.errors import ConfigurationError
from boltax.optim._learning_rate import learning_rate


class LearningRateMonitor(Callback):
    """Logs the learning rate beside each record of training metrics, and at each epoch's end.

    Args:
        key: the name under which it is logged; with several optimizers ``key/name`` for each that
            has one.

    Raises:
        ConfigurationError: at the start of training, when the optimizer's state holds no learning
            rate.

    Example:
        >>> LearningRateMonitor().key
        'lr'
    """

    def __init__(self, key: str = "lr") -> None:
        self.key = key

    def on_training_start(self, view: View) -> None:
        """Checks that there is a learning rate to log."""
        if not self._rates(view):
            raise ConfigurationError(
                "Received LearningRateMonitor for an optimizer state of type "
                f"{type(view.state.opt_state).__name__} that holds no learning rate; expected an "
                "optimizer by name, or one made with optax.inject_hyperparams. Write "
                "optax.inject_hyperparams(optax.adam)(learning_rate=schedule), or leave the "
                "callback out."
            )

    def on_log(self, view: View) -> Log:
        """Logs the learning rate of the last step."""
        return self._log(view)

    def on_training_epoch_end(self, view: View) -> Log:
        """Logs that of the epoch's last step, which so reaches the history."""
        return self._log(view)

    def _log(self, view: View) -> Log:
        rates = jax.device_get(self._rates(view))
        return Log({key: float(rate) for key, rate in rates.items()})

    def _rates(self, view: View) -> dict[str, Any]:
        found = learning_rate(view.state.opt_state)
        if isinstance(found, dict):
            return {f"{self.key}/{name}": rate for name, rate in found.items() if rate is not None}
        return {} if found is None else {self.key: found}
