"""Checks of a trainer's constructor arguments, before anything is built."""

import difflib
import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from boltax._base._monitor import check_form
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax.checkpoint._constructor_call import lacks_parts
from boltax.errors import ConfigurationError, unknown_name
from boltax.optim._build import check_hparams

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

LOADING = ContextVar("loading", default=False)
"""Whether a trainer is made for a run that there is: it leaves the folder as it is."""
LOGGER_PARAMS = ("base_log_dir", "logger_name", "logger_type", "project_name", "log_dir")


def check_arguments(
    trainer: "TrainerModule", parallel: object, logger_params: Mapping[str, Any] | None
) -> None:
    """Refuses arguments that cannot work.

    Raises:
        ConfigurationError: naming the first of them, and what to write.
    """
    if not overrides(trainer, "loss_function") and not overrides(trainer, "create_functions"):
        raise ConfigurationError(
            f"Received {trainer.name} with neither loss_function nor create_functions; expected "
            "one of them. Write def loss_function(self, model, batch, train): ... return loss, {}"
        )
    for name in logger_params or {}:
        if name not in LOGGER_PARAMS:
            raise unknown_name("logger parameter", name, LOGGER_PARAMS)
    own = [
        name
        for name in inspect.signature(_base(trainer).__init__).parameters
        if name not in ("self", "hparams")
    ]
    for name in trainer.hparams:
        if difflib.get_close_matches(name, own, n=1, cutoff=0.85):
            raise unknown_name("argument", name, own)
    for name, kind in (("loop", LoopOptions), ("checkpoint", CheckpointOptions)):
        if not isinstance(getattr(trainer, name), kind):
            raise ConfigurationError(
                f"Received {name}={getattr(trainer, name)!r}; expected {kind.__name__}. Write "
                f"{name}=boltax.{kind.__name__}(...)."
            )
    _check_step_options(trainer)
    check_form(trainer.monitor)
    check_positive(check_val_every_n_epoch=trainer.check_val_every_n_epoch)
    if parallel is not None:
        raise ConfigurationError(
            f"Received parallel={parallel!r}; expected None: this version uses one device."
        )
    # An optimizer is needed only to train; a stored one may ask for files that are elsewhere.
    if not LOADING.get() and not lacks_parts(trainer.optimizer_hparams):
        check_hparams(trainer.optimizer_hparams)


def _check_step_options(trainer: "TrainerModule") -> None:
    """Refuses options of the step where boltax does not make the step."""
    loop, default = trainer.loop, LoopOptions()
    needs = {"ema": "create_jitted_functions", "log_norms": "create_jitted_functions"}
    if not overrides(trainer, "loss_function"):
        needs |= {"microbatches": "create_functions", "precision": "create_functions"}
    for name, method in needs.items():
        value = getattr(loop, name)
        if value == getattr(default, name) or not overrides(trainer, method):
            continue
        write = "loss_function" if method == "create_functions" else "create_functions"
        raise ConfigurationError(
            f"Received LoopOptions({name}={value!r}) for {trainer.name}, which writes its steps "
            f"itself in {method}; expected steps that boltax can complete. Write {write} instead, "
            f"or leave {name} out and do it in your own step."
        )


def overridden_methods(trainer: object) -> frozenset[str]:
    """The names of the methods that a trainer's class has its own version of."""
    base, own = _base(trainer), type(trainer)
    names = (name for name, value in vars(base).items() if callable(value) and name[:2] != "__")
    return frozenset(name for name in names if getattr(own, name) is not getattr(base, name))


def overrides(trainer: "TrainerModule", method: str) -> bool:
    """Whether the trainer's class has its own version of a method."""
    return getattr(type(trainer), method) is not getattr(_base(trainer), method)


def is_trainer(value: object) -> bool:
    """Whether a value is a `TrainerModule`, which the folders before `trainer` may not import."""
    return any(cls.__module__ == "boltax.trainer" for cls in type(value).__mro__)


def check_positive(**values: int | None) -> None:
    """Refuses what is not a whole number of at least 1."""
    for name, value in values.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ConfigurationError(
                f"Received {name}={value!r}; expected a whole number of at least 1."
            )


def _base(trainer: object) -> Any:
    """`TrainerModule` itself, which this module may not import."""
    return next(cls for cls in type(trainer).__mro__ if cls.__module__ == "boltax.trainer")
